"""Times drawing the codes of a step, against an older revision and AudioCraft's own functions.

`python -m benchmarks.draws --before REVISION` prints a table, then one line of JSON. They take
turns within each round, on one thread; figures are medians of the milliseconds of processor time,
which other processes of the machine change less than the time that passes.
Logits are random, of 4 codebooks of 2048 codes, with guidance. "equal" requests all have top-250;
"mixed" ones have another temperature, top-k or top-p each, and a fourth are greedy. A step of the
engine at 16 requests, on musicgen-small's shape, is timed with either way to draw.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from audiocraft.utils import utils
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.shapes import CARDINALITY, build_language_model
from benchmarks.steps import make_engine_step
from engine import engine as engine_module
from engine.engine import Engine, EngineSettings
from engine.sampling import Sampling, sample_codes

Rows = NDArray[np.int64]
Draw = Callable[[Tensor, Sequence[Sampling], Rows, Rows], Tensor]


def load_before(revision: str) -> Draw:
    """Return the drawing of a revision from before 2026-11-28: by numpy, in groups of requests."""
    command = ["git", "show", f"{revision}:engine/sampling.py"]
    module = sys.modules["before"] = ModuleType("before")
    source = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    exec(compile(source, "before", "exec"), module.__dict__)

    def draw(
        logits: Tensor, samplings: Sequence[Sampling], conditional: Rows, null: Rows
    ) -> Tensor:
        scales = logits.new_tensor([s.guidance_scale for s in samplings])
        guided = module.apply_guidance(logits[conditional], logits[null], scales)
        finite = guided.isfinite().flatten(1).all(1)
        drawn: Tensor = module.sample_codes(guided, samplings)
        return drawn if all(finite.tolist()) else drawn - CARDINALITY

    return draw


def draw_by_audiocraft(
    logits: Tensor, samplings: Sequence[Sampling], conditional: Rows, null: Rows
) -> Tensor:
    """Draw as `LMModel._sample_next_token`: equal requests in one batch, others one by one."""
    one = samplings[0]
    if len(samplings) > 1 and samplings[-1].temperature != one.temperature:
        parts = zip(samplings, conditional[:, None], null[:, None], strict=True)
        return torch.cat([draw_by_audiocraft(logits, [s], c, n) for s, c, n in parts])
    base = logits[null]
    guided = base + (logits[conditional] - base) * one.guidance_scale
    if one.temperature == 0:
        return guided.argmax(-1)
    probabilities = torch.softmax(guided / one.temperature, -1)
    drawn: Tensor
    if one.top_p > 0:
        drawn = utils.sample_top_p(probabilities, one.top_p)
    else:
        drawn = utils.sample_top_k(probabilities, one.top_k)
    return drawn[..., 0]


def make_samplings(requests: int, *, mixed: bool) -> list[Sampling]:
    """Make how each request draws."""
    one = Sampling(7, 0, 100, temperature=1.0, top_k=250, top_p=0.0, guidance_scale=3.0)
    samplings = []
    for number in range(requests):
        other = replace(one, seed=number)
        if mixed:
            heat = (number % 4) * (0.8 + number / 100)
            top_p = 0.8 + number / 200 if number % 4 == 2 else 0.0
            other = replace(other, temperature=heat, top_k=250 - number, top_p=top_p)
        samplings.append(other)
    return samplings


def time_in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run the ways in turn; return the median milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 3):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if number >= 3:  # the first rounds warm up
                taken[name].append(1000 * (time.process_time() - begun))
    return {f"{name}_ms": round(statistics.median(times), 3) for name, times in taken.items()}


def time_draws(
    draws: dict[str, Draw], requests: int, *, mixed: bool, rounds: int
) -> dict[str, Any]:
    """Time drawing for a number of requests."""
    torch.manual_seed(requests)
    logits = 3 * torch.randn(2 * requests, 4, CARDINALITY)
    conditional = np.arange(0, 2 * requests, 2)
    given = (logits, make_samplings(requests, mixed=mixed), conditional, conditional + 1)
    return time_in_turns({name: partial(draw, *given) for name, draw in draws.items()}, rounds)


def time_steps(draws: dict[str, Draw], requests: int, rounds: int) -> dict[str, Any]:
    """Time whole steps of an engine with the musicgen-small shape, at position 250."""
    lm = build_language_model("small")
    engine = Engine(lm, EngineSettings(max_slots=requests, max_positions=600, max_text_tokens=32))
    step = make_engine_step(engine, requests, 250)

    def step_with(draw: Draw) -> None:
        with patch.object(engine_module, "sample_codes", draw):
            step()

    return time_in_turns({name: partial(step_with, draw) for name, draw in draws.items()}, rounds)


def main() -> None:
    """Measure the draws, then steps; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="revision to compare with")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws: dict[str, Draw] = {"before": load_before(options.before), "now": sample_codes}
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for mixed in (False, True):
            for requests in (1, 4, 16, 32):
                ways = {"audiocraft": draw_by_audiocraft, **draws}
                timed = "mixed" if mixed else "equal"
                row = {"timed": timed, "requests": requests} | time_draws(
                    ways, requests, mixed=mixed, rounds=options.rounds
                )
                rows.append(row)
        rows.append({"timed": "step", "requests": 16} | time_steps(draws, 16, options.rounds // 2))
    for row in rows:
        row["ratio"] = round(row["before_ms"] / row["now_ms"], 2)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    machine = {"cpu": platform.machine(), "threads": torch.get_num_threads()}
    print(json.dumps({"machine": machine, "before": options.before, "rows": rows}))


if __name__ == "__main__":
    main()
