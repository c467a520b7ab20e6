"""Times EnCodec's decoder: batches against AudioCraft, and pieces against whole clips.

`python -m benchmarks.codec` decodes clips of 10 s by an untrained codec of a published shape. Both
sides of each ratio are timed in turn, in one process, and the median over rounds is reported. On a
CPU this project decodes the clips of a batch one after the other, and so does the comparison with
AudioCraft. It prints a table, then one line of JSON.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from omegaconf import DictConfig

from bundles.tiny.recipe import codec_config, fill_codebooks
from engine.codec import Codec
from engine.params import AudioPiece, Codes, CodesPiece

SHAPES = {"bundle": (16000, 12, 64, 512), "encodec_32khz": (32000, 64, 128, 2048)}
"""Sample rate in Hz, filters, latent width and codes per codebook."""
FRAME_RATE, SECONDS = 50, 10
BATCHES, PIECES_S = (1, 4, 16), (0.5, 1.0, 2.0)


def build_codec(shape: str) -> tuple[EncodecModel, DictConfig]:
    """Build an untrained codec; return it with its configuration."""
    rate, filters, width, cardinality = SHAPES[shape]
    cfg = codec_config(filters)
    cfg.sample_rate, cfg.seanet.dimension, cfg.rvq.bins = rate, width, cardinality
    cfg.seanet.ratios = [8, 5, 4, rate // 8000]
    torch.manual_seed(0)
    model = builders.get_compression_model(cfg).eval()
    fill_codebooks(model)
    return model, cfg


def time_in_turn(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Run the functions in turn, `rounds` times; return the median seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if number:  # the first round is slow
                taken[name].append(time.perf_counter() - begun)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def decode_in_pieces(codec: Codec, codes: Codes, frames: int) -> None:
    """Decode a clip in pieces of so many frames, as for a stream."""
    array, state = codes.array(), b""
    for start in range(0, codes.frames, frames):
        part = Codes.pack(array[:, start : start + frames])
        (made,) = codec.decode([CodesPiece(part, state, start + frames >= codes.frames)])
        assert isinstance(made, AudioPiece)
        state = made.state


def decode_one_by_one(codec: Codec, clips: Sequence[Codes]) -> None:
    """Decode clips one by one with AudioCraft."""
    with torch.inference_mode():
        for clip in clips:
            codec.model.decode(torch.from_numpy(clip.array().astype(np.int64))[None], None)


def measure_shape(shape: str, rounds: int) -> list[dict[str, object]]:
    """Return a row for each batch size and each size of pieces."""
    codec = Codec(build_codec(shape)[0])
    draw = np.random.default_rng(0)
    clips = [
        Codes.pack(draw.integers(0, codec.info.cardinality, (4, SECONDS * FRAME_RATE)))
        for _ in range(max(BATCHES))
    ]
    rows: list[dict[str, object]] = []
    for batch in BATCHES:
        some = clips[:batch]
        pieces = [CodesPiece(clip) for clip in some]
        ways = {
            "ours": lambda pieces=pieces: codec.decode(pieces),
            "audiocraft": lambda some=some: decode_one_by_one(codec, some),
        }
        taken = time_in_turn(ways, rounds)  # type: ignore[arg-type]
        rate = {name: round(batch * SECONDS / seconds, 1) for name, seconds in taken.items()}
        ratio = round(taken["audiocraft"] / taken["ours"], 2)
        rows.append({"shape": shape, "batch": batch, "audio_s_per_s": rate, "ratio": ratio})
    for seconds in PIECES_S:
        frames = int(seconds * FRAME_RATE)
        taken = time_in_turn(
            {
                "whole": lambda: decode_one_by_one(codec, clips[:1]),
                "pieces": lambda frames=frames: decode_in_pieces(codec, clips[0], frames),  # type: ignore[misc]
            },
            rounds,
        )
        overhead = round(taken["pieces"] / taken["whole"], 2)
        rows.append({"shape": shape, "pieces_s": seconds, "overhead": overhead})
    return rows


def main() -> None:
    """Measure each shape and print its rows; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for shape in options.shapes:
        for row in measure_shape(shape, options.rounds):
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rows.append(row)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, **vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
