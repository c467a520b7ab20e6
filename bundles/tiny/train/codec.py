"""Trains the codec by AudioCraft's losses, against its three discriminators.

Two thirds of the budget go to reconstruction alone (multi-scale mel and waveform distance). The
rest adds the adversaries and their features, as `solvers/compression.py` combines them, and trains
the decoder only: codes keep their meaning, so language models may learn them in the meantime.
"""

import math
from pathlib import Path

import numpy as np
import torch
from audiocraft.losses import Balancer
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from audiocraft.solvers import builders as solver_builders
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from bundles.tiny.data.store import clips
from bundles.tiny.recipe import SAMPLE_RATE, codec_config
from bundles.tiny.train.progress import Average, Progress, rounded

MUSIC_CLIPS, SOUND_CLIPS = 3000, 1500
BATCH, SAMPLES = 12, SAMPLE_RATE
BATCH_OF_ADVERSARIES = 4
"""They take three times as long as the codec; music and sound are in it as in the whole batch."""
FILTERS = 12
RATE, RATE_OF_ADVERSARIES = 5e-4, 3e-4
ADVERSARIAL_FROM = 2 / 3
"""The share of the budget after which the adversaries take part."""
WEIGHTS = {"l1": 0.5, "msspec": 1.0, "mrstft": 2.0}
"""Mel bands are too wide to tell the harmonics of low notes apart; the spectra's bins are not."""
WEIGHT_OF_ADVERSARY, WEIGHT_OF_FEATURES = 1.0, 1.0


def adversaries_config() -> DictConfig:
    """Return the adversaries, narrow, with the keys of AudioCraft's `config/solver/compression`."""
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


def trained_codec(work: Path) -> EncodecModel:
    """Return the codec as it was trained in `work`, averaged."""
    model = builders.get_compression_model(codec_config(FILTERS))
    state = torch.load(work / "codec" / "state.pt", weights_only=True)
    model.load_state_dict(state["average"])
    return model.eval()


def autoencode(model: EncodecModel, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Return `audio`, [B, 1, samples], after the codec, and the quantizer's penalty.

    `EncodecModel.forward` with its convolutions in bfloat16 where the CPU has it. The quantizer
    and the last convolution stay in single precision: rounding there would be heard in quiet bands.
    """
    *inner, last = model.decoder.model
    with rounded():
        latent = model.encoder(audio)
    quantized = model.quantizer(latent.float(), model.frame_rate)
    hidden = quantized.x
    with rounded():
        for layer in inner:
            hidden = layer(hidden)
    return last(hidden.float()), quantized.penalty


def keep_codes(model: EncodecModel, average: Average) -> None:
    """Go on from the averaged weights, with an encoder and codebooks that no longer change."""
    model.load_state_dict(average.state_dict())
    model.encoder.requires_grad_(False)
    model.quantizer.eval()


def rate_at(share: float) -> float:
    """Return the learning rate: it falls along a cosine in each part of the budget.

    The codes are to be at their best when they are kept, and the decoder at the end.
    """
    if share < ADVERSARIAL_FROM:
        return RATE * max(0.05, math.cos(share / ADVERSARIAL_FROM * math.pi / 2))
    rest = (share - ADVERSARIAL_FROM) / (1 - ADVERSARIAL_FROM)
    return RATE_OF_ADVERSARIES * max(0.05, math.cos(rest * math.pi / 2))


def train(work: Path, budget_hours: float) -> None:
    """Train until the budget is spent; the averaged weights are in `work/codec/state.pt`."""
    torch.manual_seed(0)
    music = clips(work, "music", MUSIC_CLIPS)
    sound = clips(work, "sound", SOUND_CLIPS)
    model = builders.get_compression_model(codec_config(FILTERS))
    adversaries = solver_builders.get_adversarial_losses(adversaries_config())
    auxiliary = {name: solver_builders.get_loss(name, losses_config()) for name in WEIGHTS}
    weights = dict(WEIGHTS)
    for name in adversaries:
        weights |= {f"adv_{name}": WEIGHT_OF_ADVERSARY, f"feat_{name}": WEIGHT_OF_FEATURES}
    balancer = Balancer(weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.5, 0.9))
    average = Average(model, 0.999)
    parts = {"model": model, "optimizer": optimizer, "average": average, "adv": adversaries}
    progress = Progress(work, "codec", budget_hours, **parts)
    draw = np.random.default_rng([23, progress.step])
    model.train()
    adversarial = False
    while progress.share < 1:
        if progress.share > ADVERSARIAL_FROM and not adversarial:
            adversarial = True
            keep_codes(model, average)
        optimizer.param_groups[0]["lr"] = rate_at(progress.share)
        split = (3 * BATCH // 4, BATCH // 4)
        real = torch.cat(
            [m.crops(draw, n, SAMPLES) for m, n in zip((music, sound), split, strict=True)]
        )
        made, penalty = autoencode(model, real)
        logged = {}
        losses = {name: loss(made, real).squeeze() for name, loss in auxiliary.items()}
        if adversarial:
            some = slice(None, None, BATCH // BATCH_OF_ADVERSARIES)
            for name, adversary in adversaries.items():
                logged[f"d_{name}"] = adversary.train_adv(made[some], real[some])
                losses[f"adv_{name}"], losses[f"feat_{name}"] = adversary(made[some], real[some])
        optimizer.zero_grad()
        if penalty is not None and penalty.requires_grad:
            penalty.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        balancer.backward(losses, made)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update(model, progress.step)
        values = {name: loss.item() for name, loss in (losses | logged).items()}
        progress.log(**values)
    progress.save()
