"""`bench`: how fast a server is."""

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
from audiocraft_serve.cli.command import FAILED, Told, command
from audiocraft_serve.cli.progress import Bar
from audiocraft_serve.errors import ApiError

COLUMNS = (
    "at once", "seconds", "done", "failed", "first p50", "first p95", "end p50", "end p95",
    "audio s/s",
)  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """Seconds from a request to its first audio, and to its end."""

    first: float
    whole: float


def add(app: typer.Typer) -> None:
    """Add this command."""

    @command(app, "bench")
    def bench(
        told: Told,
        prompt: Annotated[str, typer.Argument(help="What to hear.")] = "calm piano, slow jazz",
        concurrency: Annotated[
            list[int], typer.Option("--concurrency", "-c", min=1, help="At once; may be repeated.")
        ] = [1, 4],  # noqa: B006  # typer copies it
        durations: Annotated[
            list[float], typer.Option("--duration", "-d", help="Seconds; may be repeated.")
        ] = [5.0],  # noqa: B006
        requests: Annotated[
            int, typer.Option(min=1, help="Of each concurrency and duration, one after another.")
        ] = 8,
        model: Annotated[str | None, typer.Option("--model", "-m")] = None,
    ) -> None:
        """Stream clips, and tell the seconds to first audio and to the end: a table, then JSON.

        What the server refuses is counted as failed, not asked again.
        """
        wanted = {"prompt": prompt} | ({"model": model} if model else {})
        results = asyncio.run(_measured(told, wanted, concurrency, durations, requests))
        facts = {"benchmark": "client", **wanted, "results": results}
        if not told.as_json:
            told.answer(facts, _table(results))
        print(json.dumps(facts))
        if any(one["failed"] for one in results):
            raise typer.Exit(FAILED)


async def _measured(
    told: Told, wanted: dict[str, Any], concurrency: Sequence[int], durations: Sequence[float],
    requests: int,
) -> list[dict[str, Any]]:  # fmt: skip
    results = []
    async with told.async_client(max_retries=0) as client:
        with Bar("bench") as bar:
            await _heard(client, wanted | {"duration": durations[0]})  # wakes what sleeps
            rounds = [(at_once, seconds) for seconds in durations for at_once in concurrency]
            for number, (at_once, seconds) in enumerate(rounds):
                bar.show(f"{at_once} at once, {seconds:g} s", number / len(rounds))
                body = wanted | {"duration": seconds}
                results.append(await _round(client, body, at_once, max(requests, at_once)))
    return results


async def _round(
    client: AsyncClient, body: dict[str, Any], at_once: int, requests: int
) -> dict[str, Any]:
    slots, failed, begun = asyncio.Semaphore(at_once), list[ApiError](), time.perf_counter()

    async def one() -> Heard | None:
        async with slots:
            try:
                return await _heard(client, body)
            except ApiError as error:
                failed.append(error)
                return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(requests)]
    took = time.perf_counter() - begun
    heard = [found for task in tasks if (found := task.result())]
    return {
        "concurrency": at_once,
        "duration": body["duration"],
        "done": len(heard),
        "failed": len(failed),
        "first_audio_s": _percentiles([one.first for one in heard]),
        "end_s": _percentiles([one.whole for one in heard]),
        "audio_s_per_s": len(heard) * body["duration"] / took,
    }


async def _heard(client: AsyncClient, body: dict[str, Any]) -> Heard:
    """Stream a clip, without a head: its first bytes are audio."""
    asked, first = time.perf_counter(), 0.0
    async with client.stream(**body, format="pcm") as stream:
        async for _ in stream.parts:
            first = first or time.perf_counter() - asked
    return Heard(first, time.perf_counter() - asked)


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return the median and the 95th percentile, each one of them (nearest rank)."""
    in_order = sorted(seconds)
    return {
        f"p{percent}": in_order[math.ceil(percent / 100 * len(in_order)) - 1] if in_order else None
        for percent in (50, 95)
    }


def _table(results: Sequence[dict[str, Any]]) -> Table:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    table = Table(*COLUMNS, box=None)
    for one in results:
        first, end = one["first_audio_s"], one["end_s"]
        table.add_row(
            str(one["concurrency"]), f"{one['duration']:g}", str(one["done"]), str(one["failed"]),
            number(first["p50"]), number(first["p95"]), number(end["p50"]), number(end["p95"]),
            number(one["audio_s_per_s"]),
        )  # fmt: skip
    return table
