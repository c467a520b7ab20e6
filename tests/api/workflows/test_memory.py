"""Tests how much memory large answers take above an idle process, each in a process of its own."""

import resource
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from api.audio.output import Output
from api.respond.clips import ClipsRendering
from api.respond.rendering import FileMaker
from api.respond.workflows import WorkflowRendering
from deployments.ledger_state import Share
from engine.params import CodecInfo, Codes, GenerationParams, Waveform
from graph.tasks.generation import Clips, GenerationTask
from graph.tasks.task import Clip, ClipRequest
from graph.workflows.song import Section, Song, build_grid, mix_song, plan_sections
from graph.workflows.task import Material, WorkflowTask

RATE, SECTION_S = 32000, 30
SETTINGS = SimpleNamespace(name="music", codec="codec")
PAIR: Any = SimpleNamespace(
    settings=SETTINGS,
    codec=CodecInfo(4, 2048, RATE, 2, 50.0),
    language_model=SimpleNamespace(sample_rate=RATE),
)


def make_noise(samples: int) -> Waveform:
    noise = np.random.default_rng(0).random((2, samples), np.float32)
    noise -= 0.5
    return Waveform.pack(noise, RATE)


async def answer_song() -> tuple[int, int]:
    """Mix ten sections to 300 s; return the bytes of the answer, and what is counted for it."""
    sections = [Section(f"{number}", "x", None, SECTION_S) for number in range(10)]
    song = Song(sections, None, 120, 4, 2, [], None, -14.0)
    grid = build_grid(song, PAIR)
    context: Any = SimpleNamespace(drawn=GenerationParams("x", 1, 1))
    clips = plan_sections(context, song, grid, PAIR)
    task = WorkflowTask(
        name="song", share=Share("key", 1.0), began=time.perf_counter(), context=context,
        chains=[clips], mix=lambda material: mix_song(song, grid, clips, [], material),
        loudness=-14.0, title="x", seconds=300.0,
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
    ("what", "least_bytes", "most"), [("song", 100e6, 200e6), ("clips", 240e6, 130e6)]
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
