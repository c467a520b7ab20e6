"""Counts how many requests the engine's scheduler runs at once in a full cache.

`python -m benchmarks.at_once` runs the scheduler and the page table without a model: which requests
run depends only on their lengths. The queue is never empty. Beside each mix of clips it states how
many slots of the longest clip fit the same memory, and how many requests would run if all of the
memory were always in use. It prints a table, then one line of JSON.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from audiocraft.models.lm import LMModel

from benchmarks.shapes import SHAPES
from engine.cache import page_bytes
from engine.conditioning import Conditions
from engine.engine import EngineSettings
from engine.page_table import PAGE, PageTable
from engine.params import GenerationParams
from engine.request import Request
from engine.scheduler import Scheduler
from engine.sequence import Sequence, Windowing

FRAME_RATE, LONGEST_S, WAITING, WARM_UP = 50, 30, 8, 2000
MIXES = {
    "log-uniform": lambda draw: np.exp(draw.uniform(np.log(2), np.log(LONGEST_S))),
    "uniform": lambda draw: draw.uniform(2, LONGEST_S),
    "1 to 10 s": lambda draw: draw.uniform(1, 10),
}
"""How each mix draws the seconds of a clip; the first two are from 2 to 30 s."""


def build_request(frames: int, tokens: int) -> Request:
    """Build a request with guidance and a text of so many tokens."""
    windowing = Windowing([0, 1, 2, 3], 2048, LONGEST_S * FRAME_RATE, LONGEST_S * FRAME_RATE // 2)
    conditions = Conditions(torch.zeros(tokens, 1), None)
    return Request(GenerationParams("", frames, 0), conditions, Sequence(windowing, frames))


def run_step(scheduler: Scheduler) -> int:
    """Run a step without a model; return how many pages are held in it."""
    for _, request in scheduler.admit_requests():
        scheduler.hold_text(request)
    segments = scheduler.plan_segments()
    held = scheduler.pages.used
    for request in [scheduler.running[segment.slot] for segment in segments]:
        request.fed += 1
        request.sequence.known_columns += 1
        if request.sequence.ended:
            scheduler.remove_request(request)
    return held


def measure_mix(name: str, pages: int, positions: int, options: argparse.Namespace) -> Any:
    """Return the means over steps of the requests and pages of a full cache."""
    draw = np.random.default_rng(options.seed)
    table = PageTable(options.slots, pages, positions, torch.device("cpu"))
    scheduler, ran, held, needed = Scheduler(table, 16), 0, 0, 0.0
    for step in range(WARM_UP + options.steps):
        while scheduler.waiting < WAITING:
            frames = int(MIXES[name](draw) * FRAME_RATE)
            scheduler.add_request(build_request(frames, int(draw.integers(5, 41))))
        used = run_step(scheduler)
        if step >= WARM_UP:
            held, ran = held + used, ran + len(scheduler.running)
            rows = [one.held for one in scheduler.running.values()]
            needed += sum(2 * one + PAGE for one in rows) / PAGE
    mean = ran / options.steps
    return {
        "mix": name,
        "at_once": round(mean, 2),
        "pages_held": round(held / options.steps / pages, 3),
        "bound": round(pages * mean * options.steps / needed, 2),
    }


def main() -> None:
    """Count for each mix; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--cache-gb", type=float, default=2.0)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    layers, width, _ = SHAPES[options.shape]
    lm = SimpleNamespace(transformer=SimpleNamespace(layers=range(layers)), dim=width)
    pages = int(options.cache_gb * 1e9 / page_bytes(cast(LMModel, lm), options.precision))
    positions = LONGEST_S * FRAME_RATE + 3
    largest = EngineSettings(max_positions=positions).largest_request
    fixed = min(options.slots, pages // largest)
    rows = [measure_mix(name, pages, positions, options) for name in MIXES]
    for row in rows:
        row["ratio"] = round(row["at_once"] / fixed, 2)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(json.dumps(vars(options) | {"pages": pages, "slots_that_fit": fixed, "rows": rows}))


if __name__ == "__main__":
    main()
