"""The decoder's training hears what repeats in every frame, and keeps it out of the decoder."""

import numpy as np
import torch
from audiocraft.models import builders

from bundles.tiny.recipe import codec_config
from bundles.tiny.train.decoder import HOP, level_phases
from bundles.tiny.train.lines import LinesLoss, make_noise


@torch.inference_mode()
def test_a_levelled_decoder_makes_the_same_of_all_phases():
    torch.manual_seed(3)
    decoder = builders.get_compression_model(codec_config(4)).decoder.eval()
    constant = torch.randn(1, 64, 1).expand(-1, -1, 30)

    def measure_ripple() -> float:
        middle = decoder(constant)[..., 10 * HOP : 20 * HOP]
        return float(middle.std(-1) / middle.abs().mean())

    before = measure_ripple()
    level_phases(decoder)
    assert measure_ripple() < 0.02 * before


def test_loss_hears_a_waveform_that_repeats_and_leads_away_from_it():
    draw = np.random.default_rng(1)
    loss = LinesLoss(HOP)
    real = make_noise(draw, 4, 50 * HOP)
    other = make_noise(draw, 4, 50 * HOP)
    repeated = real[..., :HOP].repeat(1, 1, 50)
    assert float(loss(real, real)) < 0.05
    assert float(loss(other, real)) < 0.4
    assert float(loss(repeated, real)) > 5
    mixed = (other + repeated).requires_grad_()
    before = loss(mixed, real)
    before.backward()
    assert mixed.grad is not None
    shorter = mixed.detach() - 0.03 * mixed.grad / mixed.grad.std() * mixed.detach().std()
    assert float(loss(shorter, real)) < float(before.detach())


def test_loss_hears_notches_where_lines_would_be():
    real = make_noise(np.random.default_rng(2), 4, 50 * HOP)
    folded = real.reshape(4, 1, 50, HOP).mean(2)
    notched = real - 0.9 * folded.repeat(1, 1, 50)
    loss = LinesLoss(HOP)
    assert float(loss(notched, real)) > float(loss(real, real)) + 0.2
