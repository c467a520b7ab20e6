"""Tests how much memory large answers take above an idle process, each in a process of its own."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.types import Message

from api.audio.output import Output
from api.ingress import create_app
from api.respond.clips import ClipsRendering
from api.respond.rendering import FileMaker
from api.respond.workflows import WorkflowRendering
from api.settings import UserConfig
from deployments.ledger_state import Share
from deployments.settings import EnCodecSettings, MusicGenSettings
from engine.params import AudioPiece, CodecInfo, Codes, CodesPiece, GenerationParams, Waveform
from graph.pipeline import Pipeline
from graph.registry import Registry
from graph.settings import FolderStore, JobsSettings
from graph.tasks.generation import Clips, GenerationTask
from graph.tasks.task import Clip, ClipRequest
from graph.workflows.distribution import Distribution
from graph.workflows.mix import Material
from graph.workflows.song import Section, Song, build_grid, mix_song, plan_sections
from graph.workflows.task import WorkflowTask
from tests.api.conftest import FakeLanguageModel, Method, serving

RATE, SECTION_S = 32000, 30
SETTINGS = SimpleNamespace(name="music", codec="codec")
PAIR: Any = SimpleNamespace(
    settings=SETTINGS,
    codec=CodecInfo(4, 2048, RATE, 2, 50.0),
    language_model=SimpleNamespace(sample_rate=RATE),
)


CODEC = EnCodecSettings(name="codec", kind="encodec", checkpoint="x")


def make_noise(samples: int, rate: int = RATE) -> Waveform:
    noise = np.random.default_rng(0).random((2, samples), np.float32)
    noise -= 0.5
    return Waveform.pack(noise, rate)


class StereoCodec:
    """A codec at a rate that decodes any codes to noise."""

    def __init__(self, rate: int) -> None:
        self._rate, self._hop = rate, rate // 50
        self.info = Method(lambda: CodecInfo(4, 512, rate, 2, 50.0))
        self.encode, self.decode = Method(self._encode), Method(self._decode)

    def _encode(self, piece: AudioPiece) -> CodesPiece:
        frames = -(-piece.audio.samples // self._hop)
        return CodesPiece(Codes.pack(np.zeros((4, frames), np.int16)), b"state")

    def _decode(self, piece: CodesPiece) -> AudioPiece:
        return AudioPiece(make_noise(piece.codes.frames * self._hop, self._rate), b"state")


async def answer_song() -> tuple[int, int]:
    """Mix ten sections to 300 s, with a distribution.

    Return the bytes of the answer, and what is counted for it.
    """
    sections = [Section(f"{number}", "x", None, SECTION_S) for number in range(10)]
    song = Song(sections, None, 120, 4, 2, [], None, -14.0)
    grid = build_grid(song, PAIR)
    pipeline = Pipeline(Registry([CODEC], {"codec": StereoCodec(RATE)}))
    context: Any = SimpleNamespace(drawn=GenerationParams("x", 1, 1), pipeline=pipeline)
    clips = plan_sections(context, song, grid, PAIR)
    task = WorkflowTask(
        name="song", share=Share("key", 1.0), began=time.perf_counter(), context=context,
        chains=[clips], mix=lambda material: mix_song(song, grid, clips, [], material),
        loudness=-14.0, title="x", seconds=300.0,
        distribution=Distribution(CODEC, 2),
    )  # fmt: skip
    audio = {clip: make_noise(clip.params.frames * 640) for clip in clips}
    result = await task.level_mix(task.mix(Material(audio)))
    rendering = WorkflowRendering(task=task, files=FileMaker(output=Output(), signer=None))
    return sum(map(len, rendering.render(result).parts)), rendering.count_bytes()


async def answer_clips() -> tuple[int, int]:
    """Answer eight clips in the largest format that JSON can contain."""
    params = GenerationParams("x", SECTION_S * 50, 1)
    task = GenerationTask(
        share=Share("key", 1.0), began=time.perf_counter(), pipeline=None, pair=PAIR,
        clips=[ClipRequest(params)] * 8,
    )  # fmt: skip
    codes = Codes.pack(np.zeros((4, 1), np.int16))
    clips = [Clip(at, "music", codes, make_noise(SECTION_S * RATE)) for at in range(8)]
    files = FileMaker(output=Output("wav", "f32", 96000), signer=None)
    rendering = ClipsRendering(task=task, files=files)
    return sum(map(len, rendering.render(Clips(clips)).parts)), rendering.count_bytes()


def measure_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("what", "least_bytes", "most"),
    [("song", 150e6, 200e6), ("clips", 240e6, 130e6)],
)
def test_a_large_answer_takes_little_memory(what: str, least_bytes: float, most: float):
    command = (
        "import asyncio\n"
        "from tests.api.workflows import test_memory as t\n"
        "idle = t.measure_peak()\n"
        f"size, counted = asyncio.run(t.answer_{what}())\n"
        "print(t.measure_peak() - idle, size, counted)\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, size, counted = map(int, done.stdout.split()[-3:])
    assert size > least_bytes
    assert used < most
    assert used < counted, "more than admission has counted"


CLIPS = {
    "prompt": "x", "n": 8, "duration": SECTION_S, "sample_format": "f32", "sample_rate": 96000
}  # fmt: skip
SHORT = CLIPS | {"n": 2, "duration": 1}


async def request_clips(key: str) -> tuple[int, int, int]:
    """Ask the application for eight clips; return the growth of its peak, the bytes, the count."""
    models = [MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"), CODEC]
    handles = {"music": FakeLanguageModel(), "codec": StereoCodec(16000)}
    with tempfile.TemporaryDirectory() as folder:
        jobs = JobsSettings(store=FolderStore(folder=folder))
        service = serving(models, handles, UserConfig(), settings=jobs)
        app = create_app(service)
        async with app.router.lifespan_context(app):
            await post(app, SHORT, key and f"{key} before")
            idle = measure_peak()
            held = service.executor.held_bytes
            counted, counting = 0, held.check_size

            def note(size: int) -> None:
                nonlocal counted
                counted = max(counted, size)
                counting(size)

            held.check_size = note  # type: ignore[method-assign]
            size = await post(app, CLIPS, key)
            assert not held.held
            return measure_peak() - idle, size, counted


async def post(app: Any, body: dict[str, Any], key: str) -> int:
    """Return the number of bytes of an answer; none of it is kept."""
    size, messages = 0, iter([{"type": "http.request", "body": json.dumps(body).encode()}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        nonlocal size
        assert message.get("status", 200) == 200, message
        size += len(message.get("body", b""))

    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    path = "/v1/generations"
    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": raw,
        "asgi": {"spec_version": "2.4"},
    }  # fmt: skip
    await app(scope, receive, send)
    return size


@pytest.mark.parametrize("key", ["", "order 1"])
def test_a_large_answer_takes_little_memory_of_the_ingress(key: str):
    command = (
        "import asyncio\n"
        "from tests.api.workflows import test_memory as t\n"
        f"print(*asyncio.run(t.request_clips({key!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used, size, counted = map(int, done.stdout.split()[-3:])
    assert size > 240e6
    assert used < 150e6
    assert used < counted, "more than admission has counted"
