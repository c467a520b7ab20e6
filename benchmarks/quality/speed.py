"""Measures how fast one clip is generated while nothing else runs."""

import time
from pathlib import Path

import numpy as np

from benchmarks.quality.figures import Row, show
from bundles.tiny import generate
from engine.codec import Codec
from engine.params import GenerationParams

SECONDS, FIRST_FRAMES, RUNS = 10, 50, 5


def measure(kind: str, bundle: Path) -> list[Row]:
    """Return the median time per second of audio, and the median time to the first second."""
    model = generate.load_model(kind, bundle)
    codec = Codec.load(str(bundle / "codec"), device="cpu")
    prompts = [f"slow piano number {number}" for number in range(RUNS + 1)]
    figures: dict[str, list[float]] = {"first second of audio after, s": [], "s per s of audio": []}
    for number, text in enumerate(prompts):
        for name, seconds in zip(
            figures, (FIRST_FRAMES / generate.FRAME_RATE, SECONDS), strict=True
        ):
            frames = int(seconds * generate.FRAME_RATE)
            begun = time.perf_counter()
            made = generate.generate_codes(model, [GenerationParams(text, frames, seed=number)])
            generate.decode_codes(codec, made)
            figures[name].append((time.perf_counter() - begun) / (1 if seconds == 1 else seconds))
    model.loop.close()
    medians = {name: round(float(np.median(values[1:])), 3) for name, values in figures.items()}
    return [show({"what": name, "kind": kind, "median": value}) for name, value in medians.items()]
