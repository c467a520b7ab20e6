"""Compares the engine, always full, with the engine of another working tree.

`python -m benchmarks.saturation --before PATH` runs both engines with random weights and the same
requests, each in its own process. First it counts how many requests run at once, over many steps
whose model is skipped: which requests run depends only on their lengths. Then the engines take
turns with steps that are computed: each turn skips ahead to another moment of the full engine.
Last, both decode one stream by turns. It prints one line for each result, then one line of JSON.
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
SKIPPED = 300
"""The steps whose model is skipped before each turn."""
MIXES = ("log-uniform", "uniform")


def draw_frames(mix: str, draw: np.random.Generator) -> int:
    """Draw the length of a clip from 2 to 30 seconds, in frames."""
    if mix == "uniform":
        return int(draw.uniform(2, 30) * FRAME_RATE)
    return int(np.exp(draw.uniform(np.log(2), np.log(30))) * FRAME_RATE)


class FullEngine:
    """An engine whose queue is never empty; it runs in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        from benchmarks.shapes import build_config, build_language_model
        from engine.engine import EngineSettings
        from engine.language_model import LanguageModel

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
        self.draw, self.mix = np.random.default_rng(1), MIXES[0]

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
            self.add_request(draw_frames(self.mix, self.draw))
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

    def handle(self, command: str, mix: str, steps: int) -> dict[str, float]:
        """Do what the parent asks for; return the figures."""
        if command == "count":
            self.empty()
            self.mix = mix
            self.skip(2000)
            return {"at_once": self.skip(steps)}
        if command == "alone":
            self.empty()
            self.add_request(10 * FRAME_RATE)
            self.skip(250, refill=False)
        else:
            self.skip(SKIPPED)
        self.step(command == "full")
        begun = time.perf_counter()
        ran = sum(self.step(command == "full") for _ in range(steps))
        return {"requests": ran, "seconds": time.perf_counter() - begun}


def serve_commands(options: argparse.Namespace) -> None:
    """Run an engine and answer each line of the standard input."""
    torch.set_num_threads(os.cpu_count() or 1)
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
        self._process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, cwd=path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, command: str, mix: str, steps: int) -> dict[str, float]:
        """Send a command and wait for its figures."""
        assert self._process.stdin
        print(json.dumps([command, mix, steps]), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare_turns(
    trees: dict[str, Tree], command: str, options: argparse.Namespace
) -> Iterator[tuple[str, float]]:
    """Let the trees take turns; yield the audio seconds per second of each, and the ratio."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(options.turns):
        for name, tree in trees.items():
            turns[name].append(tree.ask(command, MIXES[0], options.steps))
    speeds = {}
    for name, done in turns.items():
        seconds = sum(one["seconds"] for one in done)
        speeds[name] = sum(one["requests"] for one in done) / seconds / FRAME_RATE
        yield f"{command}_{name}_audio_s_per_s", round(speeds[name], 4)
    yield f"{command}_ratio", round(speeds["after"] / speeds["before"], 3)


def main() -> None:
    """Compare the two trees; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=".", help="the working tree to compare with")
    parser.add_argument("--shape", default="small")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--cache-gb", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=20000, help="steps without the model")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_commands(options)
        return
    after = str(Path(__file__).resolve().parent.parent)
    trees = {"before": Tree(str(Path(options.before).resolve()), options)}
    trees["after"] = Tree(after, options)
    figures: dict[str, Any] = {}
    for mix in reversed(MIXES):
        for name, tree in trees.items():
            figures[f"{mix}_at_once_{name}"] = tree.ask("count", mix, options.count)["at_once"]
            print(f"{mix}, {name}: {figures[f'{mix}_at_once_{name}']:.2f} at once", flush=True)
    for command in ("full", "alone"):
        for name, value in compare_turns(trees, command, options):
            figures[name] = value
            print(name, value, flush=True)
    for tree in trees.values():
        tree.close()
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    given = {key: getattr(options, key) for key in ("shape", "precision", "cache_gb", "turns")}
    print(json.dumps({"machine": machine} | given | figures))


if __name__ == "__main__":
    main()
