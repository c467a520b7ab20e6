"""Tests that a prepended text has its room, and that a longer one ends its request alone."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from bundles.tiny import recipe
from engine.engine import EngineSettings
from engine.errors import InvalidRequest
from engine.language_model import LanguageModel
from engine.params import GenerationParams
from engine.request import Request
from tests import checkpoints as write
from tests.conftest import Checkpoints

WINDOW_S, TOKENS = 2.0, 32
PARAMS = GenerationParams("calm piano", frames=100, seed=7)


def prepend_text() -> DictConfig:
    """Return the configuration of a model without a melody, whose text is prepended."""
    cfg = recipe.language_model_config(WINDOW_S)
    cfg.fuser.cross, cfg.fuser.prepend = [], ["description"]
    return cfg


def prepend_melody() -> DictConfig:
    cfg = write.melody_config()
    cfg.dataset.segment_duration = WINDOW_S
    return cfg


@pytest.fixture(params=[prepend_text, prepend_melody])
def model(
    checkpoints: Checkpoints, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[LanguageModel]:
    write.write_language_model(tmp_path, checkpoints.text_encoder, request.param())
    settings = EngineSettings(max_slots=3, max_text_tokens=TOKENS, prefill_chunk=50)
    model = LanguageModel.load(
        str(tmp_path), settings, device="cpu", frame_rate=50, stride_seconds=1.2
    )
    yield model
    model.loop.close()


async def run(model: LanguageModel, request: Request) -> np.ndarray:
    async with aclosing(model.loop.generate(request)) as chunks:
        return np.concatenate([chunk async for chunk in chunks], axis=1)


def write_text(model: LanguageModel, tokens: int) -> str:
    """Return a text that is encoded as so many tokens."""
    words = ["piano"]
    while (length := model.encode_text(" ".join(words)).prefix_length) < tokens + _melody(model):
        words.append("o")
    assert length == tokens + _melody(model)
    return " ".join(words)


def _melody(model: LanguageModel) -> int:
    return model.info.prefix_positions


async def test_the_longest_text_has_room_for_the_longest_window(model: LanguageModel):
    text = write_text(model, TOKENS)
    made = await run(model, model.prepare(replace(PARAMS, text=text, frames=130)))
    assert made.shape == (4, 130)


def test_a_longer_text_is_refused_before_it_costs_anything(model: LanguageModel):
    text = write_text(model, TOKENS + 2)
    with pytest.raises(InvalidRequest, match="shorten the text") as caught:
        model.prepare(replace(PARAMS, text=text))
    assert caught.value.param == "text"
    assert model.prepare(replace(PARAMS, text=text, frames=90)), "a shorter clip has room for it"


async def test_a_longer_text_in_the_engine_ends_its_request_alone(model: LanguageModel):
    """It came by a way that has not checked it; the positions beyond belong to others."""
    expected = await run(model, model.prepare(PARAMS))
    long = model.prepare(PARAMS)
    prefix = long.conditions.prefix
    assert prefix is not None
    more = torch.cat([prefix, *[prefix[:, -1:]] * 300], dim=1)
    long.conditions = replace(long.conditions, prefix=more)
    made, error = await asyncio.gather(
        run(model, model.prepare(PARAMS)), run(model, long), return_exceptions=True
    )
    assert isinstance(error, InvalidRequest)
    np.testing.assert_array_equal(made, expected)
