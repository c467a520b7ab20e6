"""Defines the command `bench`, which measures the latency and the throughput of a server."""

import asyncio
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from audiocraft_serve.async_client import AsyncClient
from audiocraft_serve.cli.codec_commands import Model
from audiocraft_serve.cli.context import FAILED, CommandContext, register_command
from audiocraft_serve.cli.progress_bar import ProgressBar
from audiocraft_serve.errors import ApiError

COLUMNS = (
    "concurrency", "seconds", "done", "failed", "first p50", "first p95", "end p50", "end p95",
    "audio s/s",
)  # fmt: skip


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its first audio, and to its end."""

    first_audio_s: float
    end_s: float


def add_commands(app: typer.Typer) -> None:
    """Register the command."""

    @register_command(app, "bench")
    def run_benchmark(
        context: CommandContext,
        prompt: Annotated[
            str, typer.Argument(help="Text to generate from.")
        ] = "calm piano, slow jazz",
        concurrency: Annotated[
            list[int],
            typer.Option("--concurrency", "-c", min=1, help="Parallel requests; can be repeated."),
        ] = [1, 4],  # noqa: B006  # typer copies it
        durations: Annotated[
            list[float], typer.Option("--duration", "-d", help="Length in s; can be repeated.")
        ] = [5.0],  # noqa: B006
        requests: Annotated[
            int, typer.Option(min=1, help="Requests for each pair of concurrency and duration.")
        ] = 8,
        model: Model = None,
    ) -> None:
        """Stream clips, and print the seconds to first audio and to the end: a table, then JSON.

        Requests that the server refuses count as failed and are not retried.
        """
        body = {"prompt": prompt} | ({"model": model} if model else {})
        results = asyncio.run(_run_rounds(context, body, concurrency, durations, requests))
        facts = {"benchmark": "client", **body, "results": results}
        if not context.as_json:
            context.print_answer(facts, _build_table(results))
        print(json.dumps(facts))
        if any(one["failed"] for one in results):
            raise typer.Exit(FAILED)


async def _run_rounds(
    context: CommandContext, body: dict[str, Any], concurrency: Sequence[int],
    durations: Sequence[float], requests: int,
) -> list[dict[str, Any]]:  # fmt: skip
    results = []
    async with context.open_async_client(max_retries=0) as client:
        with ProgressBar("bench") as bar:
            await _measure_request(client, body | {"duration": durations[0]})  # starts replicas
            rounds = [(parallel, seconds) for seconds in durations for parallel in concurrency]
            for number, (parallel, seconds) in enumerate(rounds):
                bar.show_stage(f"{parallel} in parallel, {seconds:g} s", number / len(rounds))
                request, count = body | {"duration": seconds}, max(requests, parallel)
                results.append(await _run_round(client, request, parallel, count))
    return results


async def _run_round(
    client: AsyncClient, body: dict[str, Any], parallel: int, requests: int
) -> dict[str, Any]:
    """Send requests, at most `parallel` at the same time, and summarize their latencies."""
    slots, failed, start = asyncio.Semaphore(parallel), list[ApiError](), time.perf_counter()

    async def send_request() -> Latency | None:
        async with slots:
            try:
                return await _measure_request(client, body)
            except ApiError as error:
                failed.append(error)
                return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send_request()) for _ in range(requests)]
    elapsed_s = time.perf_counter() - start
    latencies = [latency for task in tasks if (latency := task.result())]
    return {
        "concurrency": parallel,
        "duration": body["duration"],
        "done": len(latencies),
        "failed": len(failed),
        "first_audio_s": _compute_percentiles([one.first_audio_s for one in latencies]),
        "end_s": _compute_percentiles([one.end_s for one in latencies]),
        "audio_s_per_s": len(latencies) * body["duration"] / elapsed_s,
    }


async def _measure_request(client: AsyncClient, body: dict[str, Any]) -> Latency:
    """Stream a clip as pcm, which has no file header, so that its first bytes are audio."""
    start, first_audio_s = time.perf_counter(), 0.0
    async with client.stream(**body, format="pcm") as stream:
        async for _ in stream.parts:
            first_audio_s = first_audio_s or time.perf_counter() - start
    return Latency(first_audio_s, time.perf_counter() - start)


def _compute_percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return the median and the 95th percentile by the nearest-rank method; None without values."""
    ordered = sorted(values)
    return {
        f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] if ordered else None
        for percent in (50, 95)
    }


def _build_table(results: Sequence[dict[str, Any]]) -> Table:
    def format_number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    table = Table(*COLUMNS, box=None)
    for one in results:
        first, end = one["first_audio_s"], one["end_s"]
        times = (first["p50"], first["p95"], end["p50"], end["p95"], one["audio_s_per_s"])
        table.add_row(
            str(one["concurrency"]), f"{one['duration']:g}", str(one["done"]), str(one["failed"]),
            *map(format_number, times),
        )  # fmt: skip
    return table
