"""Times a decode step of MusicGen's shapes in AudioCraft, transformers and this engine.

`python -m benchmarks.decode` prints a table, then one line of JSON. The systems take turns within
each round, so that a noisy machine slows them alike; figures are medians over rounds, at three
positions of a clip, weighted to its mean. Past keys and values are random; every step does all of
a step: both rows of guidance, the model, guidance, top-250 sampling. On the CPU, AudioCraft and
transformers run in float32; on CUDA, AudioCraft runs as it does there, in float16.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.shapes import build_language_model
from benchmarks.steps import (
    TEXT_TOKENS,
    Step,
    build_transformers_model,
    make_audiocraft_step,
    make_engine_step,
    make_transformers_step,
    weight_bytes,
)
from engine.cache import page_bytes
from engine.engine import Engine, EngineSettings
from engine.page_table import count_pages

FRAME_RATE = 50


def time_steps(steps: dict[str, Step], rounds: int, device: str) -> dict[str, float]:
    """Run the steps in turn; return the median milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in taken.items()}


def measure_bandwidth(device: str) -> float:
    """Return the memory bandwidth of this process in bytes per second."""
    block = torch.ones(250_000_000, device=device)

    def read_block() -> None:
        block.sum().item()

    return block.nbytes / min(time_steps({"": read_block}, 1, device)[""] for _ in range(3)) * 1000


def measure_precision(
    precision: str, options: argparse.Namespace, speed: float
) -> list[dict[str, Any]]:
    """Return a row for each number of requests, for one precision of the engine."""
    on_cpu, last = options.device == "cpu", int(options.seconds * FRAME_RATE)
    lm_dtype = "float32" if on_cpu else "float16"
    lm = build_language_model(options.shape, device=options.device, dtype=lm_dtype)
    settings = EngineSettings(
        max_slots=max(options.requests),
        max_positions=last + 40,
        max_text_tokens=32,
        precision=precision,
    )
    engine = Engine(lm, settings)
    others: dict[str, Callable[[int, int], Step]] = {}
    if precision == "float32" and on_cpu:
        model = build_transformers_model(lm)
        others["transformers"] = lambda requests, at: make_transformers_step(model, requests, at)
    rows: list[dict[str, Any]] = []
    for requests in options.requests:
        mean: dict[str, float] = {}
        for position, weight in ((0, 0.25), (last // 2, 0.5), (last, 0.25)):
            steps = {
                "audiocraft": make_audiocraft_step(lm, requests, position),
                **{name: make(requests, position) for name, make in others.items()},
                "engine": make_engine_step(engine, requests, position),
            }
            for name, taken in time_steps(steps, options.rounds, options.device).items():
                mean[name] = mean.get(name, 0) + weight * taken
            lm.reset_streaming()
            gc.collect()
        pages = 2 * count_pages(last // 2) + count_pages(TEXT_TOKENS)
        cache = page_bytes(lm, precision) * pages * requests
        row = {"precision": precision, "requests": requests}
        row |= {f"{name}_ms": round(value, 2) for name, value in mean.items()}
        row |= {
            "ratio": round(mean["audiocraft"] / mean["engine"], 2),
            "audio_s_per_s": round(requests / mean["engine"] * 1000 / FRAME_RATE, 3),
            "floor_ms": round(1000 * (weight_bytes(lm, precision) + cache) / speed, 2),
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def measure_memory(precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run `benchmarks.memory` for the same shape; return its figures."""
    command = [sys.executable, "-m", "benchmarks.memory", "--shape", options.shape]
    command += ["--precision", precision, "--requests", str(max(options.requests))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    print("  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    return figures


def main() -> None:
    """Measure each precision; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small", choices=["small", "medium", "large"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precisions", nargs="+", help="of the engine's weights")
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=10, help="of the clips")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    on_cpu = options.device == "cpu"
    usual = ["float32", "bfloat16", "int8"] if on_cpu else ["float16", "bfloat16"]
    options.precisions = options.precisions or usual
    with torch.inference_mode():
        speed = measure_bandwidth(options.device)
        rows = [
            row
            for precision in options.precisions
            for row in measure_precision(precision, options, speed)
        ]
    machine: dict[str, Any] = {"cpu": platform.machine(), "threads": torch.get_num_threads()}
    if not on_cpu:
        machine["gpu"] = torch.cuda.get_device_name()
    figures = {"machine": machine, "read_gb_per_s": round(speed / 1e9, 1), "rows": rows}
    if on_cpu:
        figures["memory"] = [measure_memory(precision, options) for precision in options.precisions]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
