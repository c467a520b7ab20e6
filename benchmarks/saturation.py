"""Compares the engine, always full, with the engine of another working tree.

`python -m benchmarks.saturation --before PATH` runs both engines with random weights and the same
requests, each in its own process. The engines take turns. In each turn an engine runs many steps
without its model, which counts how many requests run at once, since that depends only on their
lengths; then it runs some steps with it, which are timed. Last, each decodes one stream by turns.
It prints one line for each result, then one line of JSON.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

FRAME_RATE, WAITING = 50, 8
SHORTEST_S, LONGEST_S = 2, 30


def draw_frames(draw: np.random.Generator) -> int:
    """Draw the length of a clip in frames; the logarithm of its seconds is uniform."""
    seconds = np.exp(draw.uniform(np.log(SHORTEST_S), np.log(LONGEST_S)))
    return int(seconds * FRAME_RATE)


class FullEngine:
    """An engine whose queue is never empty; it runs in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        from benchmarks.shapes import SHAPES, build_config, build_language_model
        from engine.engine import EngineSettings
        from engine.language_model import LanguageModel

        _, width, heads = SHAPES[options.shape]
        SHAPES[options.shape] = (options.layers, width, heads)
        lm = build_language_model(options.shape)
        lm.cfg = build_config(options.shape)
        settings = EngineSettings(cache_gb=options.cache_gb, precision=options.precision)
        self.model = LanguageModel(lm, settings, frame_rate=50, stride_seconds=18, take=True)
        self.model.loop.close()
        self.engine: Any = self.model.loop.engine
        self.module: Any = importlib.import_module("engine.engine")
        for name in ("past", "text", "pool"):  # in memory that was never written, reads are free
            if hasattr(self.engine.decoder.cache, name):
                getattr(self.engine.decoder.cache, name).normal_()
        self.draw = np.random.default_rng(1)
        self.skip(1500)

    def add_request(self, frames: int) -> None:
        """Put a request with a text of 5 to 40 tokens into the queue."""
        from engine.conditioning import Conditions
        from engine.params import GenerationParams

        text = torch.randn(int(self.draw.integers(5, 41)), self.engine.decoder.width)
        params = GenerationParams("", frames, int(self.draw.integers(2**31)))
        self.engine.scheduler.add_request(self.model.build_request(params, Conditions(text, None)))

    def step(self, refill: bool) -> int:
        """Run one step; return how many requests took part."""
        while refill and self.engine.scheduler.waiting < WAITING:
            self.add_request(draw_frames(self.draw))
        return len(self.engine.step())

    def skip(self, steps: int, refill: bool = True) -> float:
        """Run steps without the model; return the mean of requests that took part."""
        decoder, sample = self.engine.decoder, self.module.sample_codes
        shape = (decoder.codebooks, decoder.cardinality)
        decoder.forward = lambda _, segments: torch.zeros(sum(s.rows for s in segments), *shape)
        self.module.sample_codes = lambda logits, _: logits.argmax(-1)
        try:
            return statistics.mean(self.step(refill) for _ in range(steps))
        finally:
            del decoder.forward
            self.module.sample_codes = sample

    def empty(self) -> None:
        """Remove all requests."""
        scheduler = self.engine.scheduler
        waiting = [entry[-1] for entry in scheduler._waiting]
        for request in [*scheduler.running.values(), *waiting]:
            self.engine.cancel_request(request)

    def handle(self, command: str, skipped: int, steps: int) -> dict[str, float]:
        """Run a turn of the full engine, or of one stream; return the figures."""
        if command == "alone":
            self.empty()
            self.add_request(10 * FRAME_RATE)
        at_once = self.skip(skipped, refill=command == "full")
        self.step(command == "full")
        # On a busy machine, the time of a single thread on its core says more than the clock.
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        begun = clock()
        ran = sum(self.step(command == "full") for _ in range(steps))
        seconds = clock() - begun
        return {"at_once": at_once, "requests": ran, "seconds": seconds}


def serve_commands(options: argparse.Namespace) -> None:
    """Run an engine and answer each line of the standard input."""
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        full = FullEngine(options)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(full.handle(*json.loads(line))), flush=True)


class Tree:
    """The process that runs the engine of one working tree."""

    def __init__(self, path: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-P", __file__, "--serve", "--shape", options.shape]
        command += ["--cache-gb", str(options.cache_gb), "--precision", options.precision]
        command += ["--layers", str(options.layers), "--threads", str(options.threads)]
        self._process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, cwd=path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def read(self) -> dict[str, float]:
        """Return the next answer of the process."""
        assert self._process.stdout
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, command: str, skipped: int, steps: int) -> dict[str, float]:
        """Send a command and wait for its figures."""
        assert self._process.stdin
        print(json.dumps([command, skipped, steps]), file=self._process.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare_turns(
    trees: dict[str, Tree], command: str, skipped: int, options: argparse.Namespace
) -> Iterator[tuple[str, float]]:
    """Let the trees take turns; yield the figures of each, and the ratio of their speeds."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(options.turns):
        for name, tree in trees.items():
            turns[name].append(tree.ask(command, skipped, options.steps))
            print(command, name, turns[name][-1], flush=True)
    speeds = {}
    for name, done in turns.items():
        seconds = sum(one["seconds"] for one in done)
        speeds[name] = sum(one["requests"] for one in done) / seconds / FRAME_RATE
        at_once = statistics.mean(one["at_once"] for one in done)
        yield f"{command}_{name}_at_once", round(at_once, 2)
        yield f"{command}_{name}_audio_s_per_s", round(speeds[name], 4)
    yield f"{command}_ratio", round(speeds["after"] / speeds["before"], 3)


def main() -> None:
    """Compare the two trees; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=".", help="the working tree to compare with")
    parser.add_argument("--shape", default="small")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--cache-gb", type=float, default=2.0)
    parser.add_argument("--skipped", type=int, default=600, help="steps of a turn without model")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_commands(options)
        return
    after = str(Path(__file__).resolve().parent.parent)
    paths = {"before": str(Path(options.before).resolve()), "after": after}
    trees = {name: Tree(path, options) for name, path in paths.items()}
    for tree in trees.values():
        tree.read()  # it is ready
    figures: dict[str, Any] = {}
    for command, skipped in (("full", options.skipped), ("alone", 250)):
        for name, value in compare_turns(trees, command, skipped, options):
            figures[name] = value
            print(name, value, flush=True)
    for tree in trees.values():
        tree.close()
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    given = {
        key: getattr(options, key) for key in ("shape", "precision", "cache_gb", "turns", "steps")
    }
    print(json.dumps({"machine": machine} | given | figures))


if __name__ == "__main__":
    main()
