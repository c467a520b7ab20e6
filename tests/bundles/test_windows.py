"""Tests the windows that language models are trained on, and their past codes."""

from itertools import islice
from typing import cast

import numpy as np
import pytest
import torch
from audiocraft.models.lm import LMModel, LMOutput
from audiocraft.modules.conditioners import ConditioningAttributes
from torch import Tensor
from torch.nn import functional

from bundles.tiny.train import hearing, language


def test_short_crops_begin_with_a_bar():
    bars = np.array([80, 96, 128])
    drawn = list(islice(language.draw_windows(bars, np.random.default_rng(0)), 200))
    crops = [one for one in drawn if one[2] == language.CROP]
    assert len(crops) == 100
    for which, starts, frames in crops:
        assert (starts % bars[which] == 0).all()
        assert (starts + frames <= language.FRAMES).all()
    assert all((starts + frames <= language.FRAMES).all() for _, starts, frames in drawn)


class CertainModel:
    """A model that predicts code + 1 for every code, and nothing for the last frame."""

    def compute_predictions(self, codes: Tensor, conditions: list[ConditioningAttributes]):
        logits = 100.0 * functional.one_hot(codes + 1, 512)
        mask = torch.ones_like(codes, dtype=torch.bool)
        mask[..., -1] = False
        return LMOutput(logits.masked_fill(~mask[..., None], torch.nan), mask)


def test_half_of_what_is_heard_is_guesses_in_runs():
    codes = torch.arange(500).expand(16, 4, 500)
    model = cast(LMModel, CertainModel())
    heard = hearing.mix_in_guesses(model, codes, [], np.random.default_rng(0))
    changed = heard - codes
    assert set(changed.unique().tolist()) == {0, 1}
    assert (changed == changed[:, :1]).all(), "all codebooks of a frame together"
    assert not changed[..., -1].any(), "what cannot be guessed stays"
    changed = changed[:, 0, :-1].float()
    assert 0.4 < changed.mean() < 0.6
    begun = (changed.diff(dim=1) == 1).sum()
    assert changed.sum() / begun > hearing.RUN


def test_a_foreign_past_is_another_clip():
    codes = torch.arange(8)[:, None, None] * 1000 + torch.arange(500).expand(8, 4, 500)
    heard = hearing.swap_clips(codes, np.random.default_rng(0))
    assert not (heard // 1000 == codes // 1000).any()
    assert sorted((heard // 1000)[:, 0, 0].tolist()) == list(range(8))


@pytest.mark.parametrize(("share", "own"), [(0.0, 4), (0.79, 4), (0.8, 7), (1.0, 7)])
def test_the_last_training_hears_fewer_other_clips(share: float, own: int):
    codes = torch.arange(500).expand(8, 4, 500)
    model = cast(LMModel, CertainModel())
    heard = hearing.build_past(model, codes, [], share, np.random.default_rng(0))
    changed = heard - codes
    assert set(changed[:own].unique().tolist()) == {0, 1}, "its own guesses"
    assert (changed[own:].abs() > 1).all(), "another moment"
