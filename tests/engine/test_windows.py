"""Tests that a clip's counted positions are those that it feeds, and what of a melody it hears."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from engine.engine import EngineSettings
from engine.errors import InvalidRequest
from engine.language_model import LanguageModel
from engine.params import Codes, GenerationParams, LanguageModelInfo, Waveform
from engine.windows import LEAST_STRIDE, check_stride, count_positions, cut_melody
from tests.conftest import Checkpoints

INFO = LanguageModelInfo(4, 512, 16000, 50.0, 2.0, stride_seconds=1.0)


def test_windows_are_counted_again():
    """A clip of 6 s in windows of 2 s that advance by 1 s feeds 2 s five times."""
    assert count_positions(INFO, 100) == 100
    assert count_positions(INFO, 300) == 5 * 100
    assert count_positions(replace(INFO, delay_frames=3, prefix_positions=20), 300) == 5 * 123
    assert count_positions(INFO, 300, prompt_frames=220) == 2 * 100, "from 3 s on"


@pytest.mark.parametrize("frames", [101, 333, 3000])
def test_a_stride_cannot_multiply_a_clip_further_than_stated(frames: int):
    least = LEAST_STRIDE * INFO.max_seconds
    check_stride(INFO, least)
    assert count_positions(INFO, frames, 0, least) <= frames / LEAST_STRIDE
    with pytest.raises(InvalidRequest, match=r"at least 0\.2 s, a tenth of this model's window"):
        check_stride(INFO, 0.02)


@pytest.mark.parametrize(("frames", "prompt"), [(30, 0), (130, 0), (130, 40), (260, 170)])
async def test_counted_positions_are_those_that_are_fed(
    checkpoints: Checkpoints, frames: int, prompt: int
):
    settings = EngineSettings(max_slots=2, max_text_tokens=32, prefill_chunk=16)
    model = LanguageModel.load(
        str(checkpoints.music), settings, device="cpu", frame_rate=50, stride_seconds=18
    )
    try:
        stride = 0.3 * model.info.max_seconds
        known = Codes.pack(np.ones((model.info.codebooks, prompt), np.int16)) if prompt else None
        params = GenerationParams("calm", frames, 0, stride_seconds=stride, prompt=known)
        request = model.prepare(params)
        async for _ in model.loop.generate(request):
            pass
        await asyncio.to_thread(model.loop.close)
        fed = model.loop.engine.statistics.row_positions
        assert fed == request.row_positions
        assert fed == 2 * count_positions(model.info, frames, prompt, stride)
    finally:
        model.loop.close()


@pytest.mark.parametrize(("frames", "heard"), [(20, 10.5), (100, 10.5), (300, 6.0), (5000, 100.0)])
def test_a_melody_is_cut_to_what_a_clip_can_use(frames: int, heard: float):
    melody = Waveform.pack(np.ones((1, 600 * 1000)), 1000)
    cut = cut_melody(INFO, melody, frames)
    assert cut.seconds == pytest.approx(heard, abs=0.01)
    assert cut_melody(INFO, cut, frames).samples == cut.samples
