"""Measures the overhead of serving: a clip over HTTP against the engine and codec alone.

`python -m benchmarks.overhead` starts the system on a free port, as `make serve` does, and beside
it a process without Ray that has the same weights and as many threads. They make the same clips by
turns. `whole` is from the request to the last byte of a WAV file, against the engine's codes and
their decoding; `first` from the request to the first audio of a streamed WAV file, against the
first chunk of codes and its decoding. Ratios are medians over pairs, with the lowest and highest.
It prints a table, then one line of JSON.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import re
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from numpy.typing import NDArray

from launch import start as launch

if TYPE_CHECKING:
    from engine.codec import Codec
    from engine.language_model import LanguageModel

TEXT, FRAME_RATE = "calm piano over soft strings", 50
loaded: tuple["LanguageModel", "Codec"]
"""The models in the process without Ray."""


@dataclass(frozen=True)
class TimedClip:
    """A generated clip or its beginning, with the time it took."""

    seconds: float
    """Seconds from the request to the audio."""
    samples: NDArray[np.floating]
    """The audio [channels, samples]."""
    stages: str = ""
    """The `server-timing` header of the answer."""


def load_models(music: dict[str, Any], codec: dict[str, Any]) -> None:
    """Load the language model and the codec as the deployments do."""
    global loaded
    from deployments.settings import MusicGenSettings
    from engine.codec import Codec
    from engine.engine import EngineSettings
    from engine.language_model import LanguageModel

    settings = MusicGenSettings.model_validate(music)
    model = LanguageModel.load(
        settings.checkpoint,
        EngineSettings(precision=settings.dtype, **settings.engine.model_dump()),
        device="cpu",
        frame_rate=settings.frame_rate,
        stride_seconds=18.0,
    )
    loaded = model, Codec.load(codec["checkpoint"], device="cpu")


def generate_alone(seed: int, frames: int, sizes: tuple[int, int], first: bool) -> TimedClip:
    """Generate a clip, or only its first chunk, without Ray."""
    from engine.params import AudioPiece, Codes, CodesPiece, GenerationParams

    model, codec = loaded

    async def generate_codes() -> list[NDArray[np.int16]]:
        request = model.prepare(GenerationParams(TEXT, frames, seed))
        chunks = []
        async with aclosing(model.loop.generate(request, *sizes)) as generated:
            async for chunk in generated:
                chunks.append(chunk)
                if first:
                    break
        return chunks

    begun = time.perf_counter()
    codes = Codes.join(asyncio.run(generate_codes()))
    (piece,) = codec.decode([CodesPiece(codes, ended=not first)])
    assert isinstance(piece, AudioPiece)
    return TimedClip(time.perf_counter() - begun, piece.audio.array())


def parse_wav(file: bytes) -> NDArray[np.floating]:
    """Return the samples of a mono 16-bit WAV file, which may be incomplete."""
    at = 12
    while file[at : at + 4] not in (b"data", b""):
        at += 8 + int.from_bytes(file[at + 4 : at + 8], "little")
    return np.frombuffer(file[at + 8 : len(file) // 2 * 2], "<i2")[None] / 32768


def generate_over_http(http: httpx.Client, seed: int, frames: int, first: bool) -> TimedClip:
    """Generate a clip over HTTP; with `first`, stop at the first audio."""
    body = {"prompt": TEXT, "duration": frames / FRAME_RATE, "seed": seed, "stream": first}
    body["cache"] = False
    begun, file = time.perf_counter(), b""
    with http.stream("POST", "/v1/generations", json=body) as response:
        response.raise_for_status()
        for part in response.iter_raw():
            file += part
            if first and parse_wav(file).size:
                break
        taken = time.perf_counter() - begun
    return TimedClip(taken, parse_wav(file), response.headers.get("server-timing", ""))


def write_models(shape: str, dtype: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a language model and its codec; write their files if needed."""
    music = {"name": "music", "kind": "musicgen", "codec": "codec", "dtype": dtype, "num_cpus": 1}
    codec = {"name": "codec", "kind": "encodec", "num_cpus": 0.25}
    if shape == "bundle":
        return music | {"checkpoint": "bundle:tiny/music"}, codec | {
            "checkpoint": "bundle:tiny/codec"
        }
    from benchmarks.codec import build_codec
    from benchmarks.shapes import write_checkpoint
    from bundles.tiny.recipe import export

    write_checkpoint(shape, folder)
    export(*build_codec("encodec_32khz"), folder / "compression_state_dict.bin")
    both = {"checkpoint": str(folder)}
    return music | both | {"engine": {"max_slots": 2}}, codec | both


@contextmanager
def serve_models(music: dict[str, Any], codec: dict[str, Any]) -> Iterator[str]:
    """Serve these two models as `make serve` does; yield the address."""
    import ray

    from launch.config_file import read_config_file

    config = read_config_file(launch.ROOT / "serve_config.yaml")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config["http_options"]["port"] = port
    application = config["applications"][0]
    application["args"]["models"] = [music, codec]
    launch.start_ray()
    try:
        launch.check_resources(config)
        launch.deploy(config)
        launch.wait_until_running(application["name"])
        address = f"http://127.0.0.1:{port}"
        launch.check_ready(address)
        yield address
    finally:
        ray.shutdown()


def measure_pair(
    pool: ProcessPoolExecutor, http: httpx.Client, seed: int, frames: int, first: bool
) -> tuple[TimedClip, TimedClip]:
    """Generate one clip both ways, in alternating order; return the HTTP clip, then the other."""
    from graph.pipeline import CHUNK_S, FIRST_CHUNK_S

    sizes = int(CHUNK_S * FRAME_RATE), int((FIRST_CHUNK_S if first else CHUNK_S) * FRAME_RATE)
    ways: list[Callable[[], TimedClip]] = [
        lambda: generate_over_http(http, seed, frames, first),
        lambda: pool.submit(generate_alone, seed, frames, sizes, first).result(),
    ]
    made = {number: ways[number]() for number in ([0, 1] if seed % 2 else [1, 0])}
    served, by_itself = made[0], made[1]
    least = min(served.samples.shape[1], by_itself.samples.shape[1])
    assert least, "no audio"
    off = np.abs(served.samples[:, :least] - by_itself.samples[:, :least].clip(-1, 1))
    assert off.max() <= 2 / 32768, "they made different clips"
    return served, by_itself


def median_stages(served: list[TimedClip]) -> Iterator[tuple[str, float]]:
    """Yield each stage in `server-timing` with its median seconds."""
    told = [dict(re.findall(r"(\w+);dur=([\d.]+)", one.stages)) for one in served]
    for name in told[0]:
        yield name, round(statistics.median(float(one[name]) for one in told) / 1000, 3)


def compare_pairs(
    pool: ProcessPoolExecutor, http: httpx.Client, pairs: int, frames: int, what: str
) -> dict[str, Any]:
    """Measure several pairs, after one to warm up; return their figures."""
    first = what == "first"
    taken = [measure_pair(pool, http, seed, frames, first) for seed in range(pairs + 1)][1:]
    ratios = sorted(served.seconds / alone.seconds for served, alone in taken)
    figures = {
        "http_s": statistics.median(served.seconds for served, _ in taken),
        "alone_s": statistics.median(alone.seconds for _, alone in taken),
    }
    figures |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    row: dict[str, Any] = {"what": what}
    row |= {name: round(value, 3) for name, value in figures.items()}
    stages = median_stages([served for served, _ in taken])
    row |= {f"{name}_s": seconds for name, seconds in stages}
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    """Measure one shape; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="bundle", choices=["bundle", "small"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--seconds", type=float, default=5, help="of the clips")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # Ray's processes inherit it
    launch.set_environment()
    frames = int(options.seconds * FRAME_RATE)
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        both = write_models(options.shape, options.dtype, Path(folder))
        with (
            ProcessPoolExecutor(1, spawned, load_models, both) as pool,
            serve_models(*both) as address,
            httpx.Client(base_url=address, timeout=600, trust_env=False) as http,
        ):
            given = pool, http, options.pairs, frames
            rows = [compare_pairs(*given, what) for what in ("whole", "first")]
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, **vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
