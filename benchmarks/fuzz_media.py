"""Decodes damaged audio files, to find crashes, hangs and memory leaks in the upload decoder.

`python -m benchmarks.fuzz_media --inputs 100000` changes, cuts and repeats bytes of valid files of
every kind, by a seed, and decodes each. It prints the outcomes, the slowest time and the growth of
memory over the last nine tenths, then one line of JSON. Any error but InvalidAudio ends it.
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
    """Change some bytes of a file, and perhaps remove or repeat a part or cut off its end."""
    data = bytearray(whole)
    # Half of the changes are in the header, which has more effect than samples.
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
    """Decode many damaged files; the last line is JSON."""
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
