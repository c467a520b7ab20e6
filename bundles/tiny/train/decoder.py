"""Trains the codec's decoder further, first alone and then against AudioCraft's discriminators.

The encoder and its codebooks do not change, so codes keep their meaning for the language models.
The decoder keeps out of its transposed convolutions what repeats in every frame, by `level_phases`
and `LinesLoss`. The clips hold some plain noise, in which such lines are heard best.
Stage `decoder` minimises the reconstruction losses; stage `adversaries` adds the three
discriminators and their feature losses, combined as in `solvers/compression.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from audiocraft.losses import Balancer
from audiocraft.models.encodec import EncodecModel
from audiocraft.solvers import builders as solver_builders
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from bundles.tiny.data.store import clips
from bundles.tiny.recipe import SAMPLE_RATE
from bundles.tiny.train.codec import (
    MUSIC_CLIPS,
    SAMPLES,
    SOUND_CLIPS,
    autoencode,
    reconstruction_losses,
    trained_codec,
)
from bundles.tiny.train.lines import LinesLoss, make_noise
from bundles.tiny.train.progress import Average, Progress

HOP = SAMPLE_RATE // 50
MUSIC, SOUND, NOISE = 4, 2, 2
"""Crops of each kind in a batch."""
EVERY_OTHER = slice(None, None, 2)
"""Items for the discriminators, which are slow: a part of each batch, with the same mix."""
RATE, RATE_OF_ADVERSARIES = 7e-4, 3e-4
FALL = 0.8
"""In this last share of the budget, the rate falls to nearly nothing."""
WEIGHTS = {"l1": 0.2, "msspec": 3.0, "mrstft": 1.0, "lines": 0.4}
"""Loss weights; mel bands weigh more than in the codec stage, which has fixed the harmonics."""
WEIGHT_OF_ADVERSARY, WEIGHT_OF_FEATURES = 1.0, 1.0


def adversaries_config() -> DictConfig:
    """Return narrow discriminators, with the keys of AudioCraft's `config/solver/compression`."""
    return OmegaConf.create(
        {
            "device": "cpu",
            "adversarial": {
                "every": 1, "adversaries": ["mpd", "msd", "msstftd"], "adv_loss": "hinge",
                "feat_loss": "l1", "normalize": True,
                "optim": {
                    "optimizer": "adam", "lr": RATE_OF_ADVERSARIES,
                    "adam": {"betas": [0.5, 0.9], "weight_decay": 0.0, "eps": 1e-8},
                },
            },
            "optim": {
                "optimizer": "adam", "lr": RATE_OF_ADVERSARIES,
                "adam": {"betas": [0.5, 0.9], "weight_decay": 0.0, "eps": 1e-8},
            },
            "l1": {},
            "mpd": {
                "in_channels": 1, "out_channels": 1, "periods": [2, 3, 5, 7, 11],
                "n_layers": 5, "kernel_sizes": [5, 3], "stride": 3, "filters": 4,
                "filters_scale": 2, "max_filters": 64, "activation": "LeakyReLU",
                "activation_params": {"negative_slope": 0.2}, "norm": "weight_norm",
            },
            "msd": {
                "in_channels": 1, "out_channels": 1,
                "scale_norms": ["weight_norm", "weight_norm", "weight_norm"],
                "kernel_sizes": [5, 3], "filters": 8, "max_filters": 128,
                "downsample_scales": [4, 4, 4, 4], "activation": "LeakyReLU",
                "activation_params": {"negative_slope": 0.2},
            },
            "msstftd": {
                "in_channels": 1, "out_channels": 1, "filters": 12,
                "n_ffts": [512, 1024, 256], "hop_lengths": [128, 256, 64],
                "win_lengths": [512, 1024, 256], "activation": "LeakyReLU",
                "activation_params": {"negative_slope": 0.2}, "norm": "weight_norm",
            },
        }
    )  # fmt: skip


class Source:
    """Rendered clips and noise, in the shares of a batch."""

    def __init__(self, work: Path) -> None:
        self._music = clips(work, "music", MUSIC_CLIPS)
        self._sound = clips(work, "sound", SOUND_CLIPS)

    def crops(self, draw: np.random.Generator) -> Tensor:
        """Return a batch of crops, float32 [MUSIC + SOUND + NOISE, 1, SAMPLES]."""
        return torch.cat(
            [
                self._music.crops(draw, MUSIC, SAMPLES),
                self._sound.crops(draw, SOUND, SAMPLES),
                make_noise(draw, NOISE, SAMPLES),
            ]
        )


@torch.no_grad()
def level_phases(decoder: nn.Module) -> None:
    """Change the transposed convolutions so that a constant input gives a constant output.

    Their kernels are two strides long, so each output is the sum of two taps. That sum becomes the
    same for all outputs of a stride. Otherwise the mean of the activations makes a waveform that
    repeats in every frame. The kernel's norm, a scale per input channel, does not matter here.
    """
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose1d):
            assert layer.kernel_size[0] == 2 * layer.stride[0]
            kernel = layer.get_parameter("weight_v")
            taps = kernel.view(*kernel.shape[:2], 2, -1)
            sums = taps.sum(-2, keepdim=True)
            taps -= (sums - sums.mean(-1, keepdim=True)) / 2


def load_trained_decoder(stage: str, work: Path, bundle: Path) -> EncodecModel:
    """Load the codec in `bundle` with the averaged decoder that a stage has trained."""
    model = trained_codec(bundle)
    state = torch.load(work / stage / "state.pt", weights_only=True)
    model.load_state_dict(state["average"])
    return model


def train(stage: str, work: Path, bundle: Path, budget_hours: float) -> None:
    """Train the decoder of the codec in `bundle` until the budget is spent.

    `stage` is "decoder" or "adversaries".
    """
    torch.manual_seed(0)
    source = Source(work)
    model = trained_codec(bundle)
    model.encoder.requires_grad_(False)
    model.decoder.train()
    level_phases(model.decoder)
    adversaries: Any = torch.nn.ModuleDict()  # of modules that torch's types do not tell apart
    if stage == "adversaries":
        adversaries = solver_builders.get_adversarial_losses(adversaries_config())
    reconstruction = reconstruction_losses() | {"lines": LinesLoss(HOP)}
    weights = dict(WEIGHTS)
    for name in adversaries:
        weights |= {f"adv_{name}": WEIGHT_OF_ADVERSARY, f"feat_{name}": WEIGHT_OF_FEATURES}
    balancer = Balancer(weights)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=RATE, betas=(0.5, 0.9))
    average = Average(model, 0.998)
    parts = {"model": model, "optimizer": optimizer, "average": average, "adv": adversaries}
    progress = Progress(work, stage, budget_hours, **parts)
    draw = np.random.default_rng([43, progress.step])
    while progress.share < 1:
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (1 - progress.share) / FALL + 0.02)
        real = source.crops(draw)
        made, _ = autoencode(model, real)
        losses = {name: loss(made, real).squeeze() for name, loss in reconstruction.items()}
        learned = {}
        for name, adversary in adversaries.items():
            some = made[EVERY_OTHER], real[EVERY_OTHER]
            learned[f"d_{name}"] = adversary.train_adv(*some)
            losses[f"adv_{name}"], losses[f"feat_{name}"] = adversary(*some)
        optimizer.zero_grad()
        balancer.backward(losses, made)
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 5.0)
        optimizer.step()
        level_phases(model.decoder)
        average.update(model, progress.step)
        progress.log(**{name: loss.item() for name, loss in (losses | learned).items()})
    progress.save()
