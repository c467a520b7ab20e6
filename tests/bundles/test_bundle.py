"""Tests the layout, size and configuration of the committed models."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from bundles.tiny import recipe
from engine.checkpoints import CODEC_FILE, LANGUAGE_MODEL_FILE
from engine.sources import BUNDLES

TINY = BUNDLES / "tiny"
MEGABYTES = {"codec": 5, "music": 12, "sound": 8, "t5": 4, "discriminators": 2}


@pytest.mark.parametrize("name", MEGABYTES)
def test_it_stays_small(name: str):
    assert sum(path.stat().st_size for path in (TINY / name).iterdir()) < MEGABYTES[name] * 1e6


@pytest.mark.parametrize(
    "path",
    [
        Path("codec", CODEC_FILE),
        Path("music", LANGUAGE_MODEL_FILE),
        Path("sound", LANGUAGE_MODEL_FILE),
    ],
    ids=lambda p: p.parts[0],
)
def test_it_is_half_precision_with_its_configuration(path: Path):
    stored = torch.load(TINY / path, weights_only=True)
    floats = {v.dtype for v in stored["best_state"].values() if v.is_floating_point()}
    assert floats == {torch.float16}
    cfg = OmegaConf.create(stored["xp.cfg"])
    assert cfg.sample_rate == recipe.SAMPLE_RATE
