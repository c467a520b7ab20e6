"""Trains the multi-band diffusion decoder: one U-Net per band, from the codec's latents to audio.

The loss is that of `solvers/diffusion.py` with `solver/diffusion/default`: the squared error of the
noise, with another step for each item of a batch. (Divided by the power of the noisy input,
`norm_power` 1, only steps that are nearly all noise counted, and half an hour taught nothing else.)
"""

import math
from pathlib import Path

import numpy as np
import torch
from audiocraft.models import builders
from audiocraft.modules.diffusion_schedule import NoiseSchedule
from julius.bands import SplitBands
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn import functional

from bundles.tiny.data.store import clips
from bundles.tiny.recipe import SAMPLE_RATE
from bundles.tiny.train.codec import MUSIC_CLIPS, SOUND_CLIPS, trained_codec
from bundles.tiny.train.progress import Average, Progress

BANDS = 2
BATCH, SAMPLES = 8, SAMPLE_RATE
RATE = 1e-3


def build_config(codec_dim: int) -> DictConfig:
    """Build a band's configuration, with the keys of AudioCraft's `config/solver/diffusion`."""
    return OmegaConf.create(
        {
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "device": "cpu",
            "schedule": {
                "beta_t0": 1e-5, "beta_t1": 2.9e-2, "beta_exp": 7.5, "num_steps": 1000,
                "variance": "beta", "clip": 5.0, "rescale": 1.0, "n_bands": None,
                "noise_scale": 1.0,
            },
            "diffusion_unet": {
                "hidden": 24, "depth": 4, "res_blocks": 1, "norm_groups": 4, "kernel": 8,
                "stride": 4, "growth": 2.0, "max_channels": 128, "dropout": 0.0, "bilstm": False,
                "transformer": False, "codec_dim": codec_dim, "cross_attention": False,
                "emb_all_layers": True,
            },
            "processor": {
                "use": True, "name": "multi_band_processor", "n_bands": 8, "num_samples": 1000,
                "power_std": 1.0,
            },
        }
    )  # fmt: skip


def build_bands(codec_dim: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Build the untrained model and processor of every band."""
    cfg = build_config(codec_dim)
    models = nn.ModuleList(builders.get_diffusion_model(cfg) for _ in range(BANDS))
    processors = [builders.get_processor(cfg.processor, SAMPLE_RATE) for _ in range(BANDS)]
    return models, nn.ModuleList(processors)


def load_trained_bands(work: Path, bundle: Path) -> list[tuple[nn.Module, nn.Module]]:
    """Load the averaged model and the processor of each band from `work`."""
    models, processors = build_bands(trained_codec(bundle).encoder.dimension)
    state = torch.load(work / "diffusion" / "state.pt", weights_only=True)
    models.load_state_dict(state["average"])
    processors.load_state_dict(state["processors"])
    return list(zip(models, processors, strict=True))


def train(work: Path, bundle: Path, budget_hours: float) -> None:
    """Train all bands in turn, one per step, until the budget is spent."""
    torch.manual_seed(0)
    sources = (clips(work, "music", MUSIC_CLIPS), clips(work, "sound", SOUND_CLIPS))
    codec = trained_codec(bundle)
    models, processors = build_bands(codec.encoder.dimension)
    schedule = build_config(codec.encoder.dimension).schedule
    schedules = [
        NoiseSchedule(**schedule, sample_processor=processor, device="cpu")
        for processor in processors
    ]
    split = SplitBands(SAMPLE_RATE, n_bands=BANDS)
    optimizer = torch.optim.Adam(models.parameters(), lr=RATE, betas=(0.9, 0.99))
    average = Average(models, 0.999)
    parts = {"models": models, "processors": processors, "optimizer": optimizer}
    progress = Progress(work, "diffusion", budget_hours, average=average, **parts)
    draw = np.random.default_rng([31, progress.step])
    while progress.share < 1:
        optimizer.param_groups[0]["lr"] = RATE * max(0.05, math.cos(progress.share * math.pi / 2))
        band = progress.step % BANDS
        real = torch.cat([source.crops(draw, BATCH // 2, SAMPLES) for source in sources])
        with torch.inference_mode():
            latent = codec.decode_latent(codec.encode(real)[0])
        wanted = split(real)[band]
        noisy, noise, step = schedules[band].get_training_item(wanted, tensor_step=True)
        made = models[band](noisy, step, condition=latent.clone()).sample
        loss = functional.mse_loss(made, noise)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(models[band].parameters(), 1.0)
        optimizer.step()
        average.update(models, progress.step)
        progress.log(**{f"band_{band}": loss.item()})
    progress.save()
