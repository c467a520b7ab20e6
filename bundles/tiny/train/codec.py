"""Trains the codec to reconstruct, by AudioCraft's losses on waveforms and spectra.

Its codes are settled then: `decoder` trains what makes audio of them against the discriminators.
"""

import math
from pathlib import Path

import numpy as np
import torch
from audiocraft.losses import Balancer
from audiocraft.models import builders, loaders
from audiocraft.models.encodec import EncodecModel
from audiocraft.solvers import builders as solver_builders
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from bundles.tiny.data.store import clips
from bundles.tiny.recipe import SAMPLE_RATE, codec_config
from bundles.tiny.train.progress import Average, Progress

MUSIC_CLIPS, SOUND_CLIPS = 3000, 1500
BATCH, SAMPLES = 12, SAMPLE_RATE
FILTERS = 12
RATE = 5e-4
WEIGHTS = {"l1": 0.5, "msspec": 1.0, "mrstft": 2.0}
"""Mel bands are too wide to tell the harmonics of low notes apart; the spectra's bins are not."""


def losses_config() -> DictConfig:
    """Return the reconstruction losses, with the keys of AudioCraft's `loss/default`."""
    return OmegaConf.create(
        {
            "l1": {},
            "msspec": {
                "sample_rate": SAMPLE_RATE, "range_start": 6, "range_end": 11, "n_mels": 64,
                "f_min": 50.0, "f_max": None, "normalized": True, "alphas": False,
                "floor_level": 1e-5,
            },
            "mrstft": {
                "n_ffts": [2048, 1024, 512], "hop_lengths": [256, 128, 64],
                "win_lengths": [2048, 1024, 512], "window": "hann_window",
                "normalized": False, "factor_sc": 0.5, "factor_mag": 0.5, "epsilon": 1e-7,
            },
        }
    )  # fmt: skip


def reconstruction_losses() -> dict[str, nn.Module]:
    """Return the losses of `WEIGHTS`, by name."""
    return {name: solver_builders.get_loss(name, losses_config()) for name in WEIGHTS}


class Source:
    """Rendered clips, three of music to one of sound in a batch."""

    def __init__(self, work: Path) -> None:
        self._music = clips(work, "music", MUSIC_CLIPS)
        self._sound = clips(work, "sound", SOUND_CLIPS)

    def crops(self, draw: np.random.Generator) -> Tensor:
        """Return a batch of crops, float32 [BATCH, 1, SAMPLES]."""
        music, sound = 3 * BATCH // 4, BATCH // 4
        crops = (self._music.crops(draw, music, SAMPLES), self._sound.crops(draw, sound, SAMPLES))
        return torch.cat(crops)


def trained_codec(bundle: Path) -> EncodecModel:
    """Return the codec in `bundle`, in single precision. Raises FileNotFoundError before it."""
    model = loaders.load_compression_model(bundle / "codec")
    assert isinstance(model, EncodecModel)
    return model.eval()


def autoencode(model: EncodecModel, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Return `audio`, [B, 1, samples], after the codec, and the quantizer's penalty.

    All is in single precision. With bfloat16, the encoder's strided convolutions were wrong by 92 %
    on a CPU with AMX (oneDNN of torch 2.11), and without AMX it was not faster.
    """
    quantized = model.quantizer(model.encoder(audio), model.frame_rate)
    return model.decoder(quantized.x), quantized.penalty


def train(work: Path, budget_hours: float) -> None:
    """Train until the budget is spent; the averaged weights are in `work/codec/state.pt`."""
    torch.manual_seed(0)
    source = Source(work)
    model = builders.get_compression_model(codec_config(FILTERS))
    reconstruction = reconstruction_losses()
    balancer = Balancer(dict(WEIGHTS))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.5, 0.9))
    average = Average(model, 0.999)
    parts = {"model": model, "optimizer": optimizer, "average": average}
    progress = Progress(work, "codec", budget_hours, **parts)
    draw = np.random.default_rng([23, progress.step])
    model.train()
    while progress.share < 1:
        optimizer.param_groups[0]["lr"] = RATE * max(0.05, math.cos(progress.share * math.pi / 2))
        real = source.crops(draw)
        made, penalty = autoencode(model, real)
        losses = {name: loss(made, real).squeeze() for name, loss in reconstruction.items()}
        optimizer.zero_grad()
        if penalty is not None and penalty.requires_grad:
            penalty.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        balancer.backward(losses, made)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update(model, progress.step)
        progress.log(**{name: loss.item() for name, loss in losses.items()})
    progress.save()
