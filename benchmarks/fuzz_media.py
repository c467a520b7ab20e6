"""Damaged audio files at the decoder of uploads: no crash, no hang, no growth.

`python -m benchmarks.fuzz_media --inputs 100000` changes, cuts and repeats bytes of real files of
every kind, seeded, and decodes each. It prints how they ended, the slowest, and how much memory
grew over the last nine tenths, then one line of JSON. An error of any other type ends it.
"""

import argparse
import json
import os
import platform
import time
from collections import Counter

import numpy as np
import psutil

from benchmarks.media_files import FILES
from engine.errors import InvalidAudio
from engine.media import decode
from engine.params import MediaLimits

LIMITS = MediaLimits(max_bytes=2_000_000, max_seconds=20, max_channels=2)


def damage_file(whole: bytes, draw: np.random.Generator) -> bytes:
    """Return a file with bytes changed, and perhaps a part cut, repeated, or the end missing."""
    data = bytearray(whole)
    # Heads decide more than samples do.
    reach = len(data) if draw.random() < 0.5 else min(len(data), 256)
    for at in draw.integers(reach, size=int(draw.integers(1, 24))):
        data[at] = (0, 0xFF, 0x7F, 0x80, int(draw.integers(256)))[int(draw.integers(5))]
    start, end = sorted(int(at) for at in draw.integers(len(data), size=2))
    match int(draw.integers(4)):
        case 1:
            del data[start:end]
        case 2:
            data[start:start] = data[start:end]
        case 3:
            del data[end:]
    return bytes(data)


def main() -> None:
    """Decode many damaged files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    files = {kind: make() for kind, make in FILES.items()}
    kinds, process = list(files), psutil.Process()
    endings: Counter[str] = Counter()
    slowest, resident = 0.0, 0
    begun = time.perf_counter()
    for number in range(options.inputs):
        data = damage_file(files[kinds[number % len(kinds)]], draw)
        started = time.perf_counter()
        try:
            audio = decode(data, LIMITS)
            assert np.isfinite(audio.array()).all()
            endings["decoded"] += 1
        except InvalidAudio as error:
            endings[str(error).split(":")[0].split(";")[0][:40]] += 1
        slowest = max(slowest, time.perf_counter() - started)
        if number == options.inputs // 10:
            resident = process.memory_info().rss
    figures = {
        "inputs": options.inputs,
        "seconds": round(time.perf_counter() - begun, 1),
        "slowest_ms": round(1000 * slowest, 1),
        "grew_mb": round((process.memory_info().rss - resident) / 1e6, 1),
        "endings": dict(endings.most_common(12)),
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, **figures}))


if __name__ == "__main__":
    main()
