"""Measures three servers with the same weights under randomly arriving requests.

`python -m benchmarks.arrivals` deploys on Ray Serve, one after the other: this project's MusicGen
deployment, AudioCraft's generation in static batches under `@serve.batch`, and AudioCraft's
generation for one request at a time. Each gets the same traces: first all requests at once, which
gives its saturated throughput, then Poisson arrivals at fractions of the rate at which static
batches saturate. Clips are 1 to 10 seconds long, uniformly. It prints a table, then one line of
JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Ray reads these when it is imported; its workers inherit them.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}

import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.handle import DeploymentHandle  # noqa: E402

from benchmarks.shapes import write_checkpoint  # noqa: E402
from benchmarks.static import StaticBatches  # noqa: E402
from deployments.musicgen import MusicGen  # noqa: E402
from deployments.settings import EngineArgs, MusicGenSettings  # noqa: E402
from engine.params import GenerationParams  # noqa: E402

FRAME_RATE = 50
CHUNK_FRAMES, FIRST_CHUNK_FRAMES = 50, 10
CPUS = {"num_cpus": os.cpu_count() or 1}


@dataclass(frozen=True)
class Outcome:
    """The measured times of one request, in seconds."""

    seconds: float
    """Duration of the clip."""
    first: float
    """Time from sending the request to its first codes."""
    whole: float
    """Time from sending the request to its last codes."""


async def send_request(
    handle: DeploymentHandle, params: GenerationParams, streams: bool
) -> Outcome:
    """Send one request, read its codes, and measure the times."""
    sent, first, frames = time.perf_counter(), 0.0, 0
    if streams:
        sizes = (CHUNK_FRAMES, FIRST_CHUNK_FRAMES)
        async for chunk in handle.options(stream=True).generate.remote(params, *sizes):
            first = first or time.perf_counter() - sent
            frames += chunk.codes.frames
    else:
        frames = (await handle.generate.remote(params)).frames
    whole = time.perf_counter() - sent
    assert frames == params.frames
    return Outcome(frames / FRAME_RATE, first or whole, whole)


async def replay_arrivals(
    handle: DeploymentHandle, streams: bool, arrivals: list[float], clips: list[GenerationParams]
) -> dict[str, float]:
    """Send each clip at its arrival time; return the figures over all clips."""
    begun = time.perf_counter()

    async def send_at(arrival: float, params: GenerationParams) -> Outcome:
        await asyncio.sleep(max(0.0, begun + arrival - time.perf_counter()))
        return await send_request(handle, params, streams)

    done = await asyncio.gather(*(send_at(*pair) for pair in zip(arrivals, clips, strict=True)))
    taken = time.perf_counter() - begun
    whole, first = [d.whole for d in done], [d.first for d in done]
    return {
        "p50_s": round(float(np.percentile(whole, 50)), 2),
        "p95_s": round(float(np.percentile(whole, 95)), 2),
        "first_p50_s": round(float(np.percentile(first, 50)), 2),
        "first_share_p50": round(float(np.median([d.first / d.whole for d in done])), 3),
        "audio_s_per_s": round(sum(d.seconds for d in done) / taken, 2),
    }


def draw_arrivals(requests: int, seed: int) -> tuple[list[float], list[GenerationParams]]:
    """Draw arrival times at one request per second, and the clips."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1.0, requests))
    frames = (draw.uniform(1, 10, requests) * FRAME_RATE).astype(int)
    clips = [GenerationParams(f"clip {i}", int(n), seed=i) for i, n in enumerate(frames)]
    return (arrivals - arrivals[0]).tolist(), clips


def build_servers(checkpoint: str, slots: int, dtype: str) -> dict[str, serve.Application]:
    """Build the applications of the three servers."""
    settings = MusicGenSettings.model_validate(
        {
            "kind": "musicgen", "name": "ours", "checkpoint": checkpoint, "codec": "none",
            "dtype": dtype, "engine": EngineArgs(max_slots=slots, max_text_tokens=32),
        }
    )  # fmt: skip
    static: Any = StaticBatches
    ours: Any = MusicGen
    return {
        "static": static.options(ray_actor_options=CPUS).bind(checkpoint, slots),
        "single": static.options(ray_actor_options=CPUS).bind(checkpoint, 1),
        "ours": ours.options(ray_actor_options=CPUS).bind(settings),
    }


def main() -> None:
    """Measure the three servers one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="mini")
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--slots", type=int, default=16, help="also the static batches' size")
    parser.add_argument("--dtype", default="float32", help="of this project's weights")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.5, 1.0])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    arrivals, clips = draw_arrivals(options.requests, options.seed)
    mean = sum(clip.frames for clip in clips) / len(clips) / FRAME_RATE
    rows: list[dict[str, Any]] = []
    saturation = 0.0
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(options.shape, Path(folder))
        for name, application in build_servers(folder, options.slots, options.dtype).items():
            handle = serve.run(application, name=name, route_prefix=None)
            # The first request is slow.
            asyncio.run(replay_arrivals(handle, name == "ours", [0.0], clips[:1]))
            for rate in (0.0, *options.rates):
                at = [arrival / (rate * saturation) if rate else 0.0 for arrival in arrivals]
                figures = asyncio.run(replay_arrivals(handle, name == "ours", at, clips))
                row = {"server": name, "rate": rate or "all at once", **figures}
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                rows.append(row)
                if name == "static" and not rate:
                    saturation = figures["audio_s_per_s"] / mean
            serve.delete(name)
    ray.shutdown()
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    given = vars(options) | {"static_saturates_at_requests_per_s": round(saturation, 3)}
    print(json.dumps({"machine": machine, **given, "rows": rows}))


if __name__ == "__main__":
    main()
