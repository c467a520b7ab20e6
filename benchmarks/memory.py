"""Measures the memory of an engine at a published shape.

`python -m benchmarks.memory` builds random weights, gives them to an engine, decodes, and prints
one line of JSON: the growth of resident memory in MB since before the model was built, at the peak
while loading and while decoding, with the sizes of the weights and of the slots.
"""

import argparse
import gc
import json
from pathlib import Path

import torch

from benchmarks.shapes import build_language_model
from benchmarks.steps import MORE_FRAMES, TEXT_TOKENS, make_engine_step, weight_bytes
from engine.cache import page_bytes
from engine.engine import Engine, EngineSettings


def read_memory(key: str) -> int:
    """Return the resident memory of this process in bytes: now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(key)]
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Reset the peak, VmHWM (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def measure_engine(shape: str, precision: str, requests: int, positions: int) -> dict[str, object]:
    """Load the engine and decode a full batch; return the figures."""
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    before = read_memory("VmRSS")
    lm = build_language_model(shape)
    weights = weight_bytes(lm, precision)
    settings = EngineSettings(
        max_slots=requests,
        max_positions=positions,
        max_text_tokens=TEXT_TOKENS,
        precision=precision,
    )
    slots = requests * settings.largest_request * page_bytes(lm, precision)
    reset_peak()
    engine = Engine(lm, settings, take=True)
    loading = read_memory("VmHWM") - before
    del lm
    gc.collect()
    reset_peak()
    for position in (0, positions - MORE_FRAMES - 4):
        step = make_engine_step(engine, requests, position)
        for _ in range(3):
            step()
    decoding = read_memory("VmHWM") - before
    return {
        "shape": shape,
        "precision": precision,
        "requests": requests,
        "positions": positions,
        "weights_mb": weights // 10**6,
        "slots_mb": slots // 10**6,
        "loading_mb": loading // 10**6,
        "decoding_mb": decoding // 10**6,
        "over": round(decoding / (weights + slots) - 1, 3),
    }


def main() -> None:
    """Measure one engine and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--positions", type=int, default=540)
    options = parser.parse_args()
    with torch.inference_mode():
        print(json.dumps(measure_engine(**vars(options))))


if __name__ == "__main__":
    main()
