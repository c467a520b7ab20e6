"""Trains the next codec, from its first step to its last, with AudioCraft's balanced losses.

It begins with the encoder of the codec in the bundle and reconstructs at first; soon the
adversaries join and stay to the end. `LinesLoss` keeps the decoder from repeating one waveform in
every frame. The clips hold some plain noise, in which such lines are heard best.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from audiocraft.losses import Balancer
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from audiocraft.solvers import builders as solver_builders
from omegaconf import DictConfig
from torch import Tensor, nn

from bundles.tiny.data.store import clips
from bundles.tiny.recipe import SAMPLE_RATE, next_codec_config
from bundles.tiny.train.codec import FILTERS, autoencode, reconstruction_losses, trained_codec
from bundles.tiny.train.decoder import adversaries_config
from bundles.tiny.train.lines import LinesLoss, make_noise
from bundles.tiny.train.progress import Average, Progress, rounded
from bundles.tiny.train.warm import begin_with

STAGE = "next-codec"
MUSIC_CLIPS, SOUND_CLIPS = 3000, 1500
MUSIC, SOUND, NOISE = 6, 3, 3
"""Crops of each kind in a batch."""
JUDGED = [0, 3, 6, 9]
"""Those that the adversaries hear: two of music, one sound, one noise."""
SAMPLES = SAMPLE_RATE
HOP = SAMPLE_RATE // 50
RATE = 1e-3
FALL = 0.8
"""In this last share of the budget, the rate falls to nearly nothing."""
ADVERSARIES_FROM_STEP = 2000
WEIGHTS = {"l1": 0.2, "msspec": 2.0, "mrstft": 1.0, "lines": 1.0}
WEIGHT_OF_ADVERSARY, WEIGHT_OF_FEATURES = 0.5, 1.0
REVIVE_EVERY_STEPS = 20
LEAST_USE = 0.03
"""The least use of a code in a batch, as a moving average; a less used code begins anew."""


def next_adversaries_config() -> DictConfig:
    """Return the adversaries, with the keys of AudioCraft's `config/solver/compression`.

    The longest window of MS-STFT-D tells neighbouring lines of 50 Hz apart. A period of MPD is the
    codec's frame: a waveform that repeats is a constant there.
    """
    cfg = adversaries_config()
    cfg.adversarial.adversaries = ["msstftd", "mpd"]
    cfg.msstftd.filters = 8
    cfg.msstftd.n_ffts = cfg.msstftd.win_lengths = [2048, 1024, 256]
    cfg.msstftd.hop_lengths = [512, 256, 64]
    cfg.mpd.periods = [2, 3, 5, 7, 11, HOP]
    return cfg


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
def revive_codes(model: EncodecModel, latents: Tensor, least: float) -> int:
    """Set codes that are used less than `least` to vectors of `latents`, [B, D, T].

    Each codebook takes what the ones before it left over. Returns how many codes were set.
    """
    residual = latents.transpose(1, 2).reshape(-1, latents.shape[1])
    revived = 0
    for layer in model.quantizer.vq.layers:
        book = layer._codebook
        dead = torch.nonzero(book.cluster_size < least)[:, 0]
        chosen = residual[torch.randint(len(residual), (len(dead),))]
        book.embed[dead] = book.embed_avg[dead] = chosen
        book.cluster_size[dead] = 1.0
        book.inited.fill_(1)
        residual = residual - book.decode(book.encode(residual))
        revived += len(dead)
    return revived


def encode_latents(model: EncodecModel, audio: Tensor) -> Tensor:
    """Return what the encoder gives the quantizer, [B, D, T]."""
    with torch.no_grad(), rounded():
        latents: Tensor = model.encoder(audio)
    return latents.float()


def build_model() -> EncodecModel:
    """Return the untrained codec."""
    model: EncodecModel = builders.get_compression_model(next_codec_config(FILTERS))
    return model


def judge(adversaries: Any, made: Tensor, real: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train the adversaries by a step; return what the codec is to minimise, and their losses."""
    losses, learned = {}, {}
    for name, adversary in adversaries.items():
        learned[f"d_{name}"] = adversary.train_adv(made, real)
        losses[f"adv_{name}"], losses[f"feat_{name}"] = adversary(made, real)
    return losses, learned


def balance(names: list[str]) -> Balancer:
    """Return AudioCraft's balancer for all losses; those that are absent in a step do not count."""
    weights = dict(WEIGHTS)
    for name in names:
        weights |= {f"adv_{name}": WEIGHT_OF_ADVERSARY, f"feat_{name}": WEIGHT_OF_FEATURES}
    return Balancer(weights)


def train(work: Path, bundle: Path, budget_hours: float) -> None:
    """Train until the budget is spent; the averaged weights are in `work/next-codec/state.pt`."""
    torch.manual_seed(0)
    source, model = Source(work), build_model()
    begin_with(model, trained_codec(bundle))
    adversaries: Any = solver_builders.get_adversarial_losses(next_adversaries_config())
    reconstruction: dict[str, nn.Module] = reconstruction_losses() | {"lines": LinesLoss(HOP)}
    balancer = balance(list(adversaries))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.5, 0.9))
    average = Average(model, 0.999)
    parts = {"model": model, "optimizer": optimizer, "average": average, "adv": adversaries}
    progress = Progress(work, STAGE, budget_hours, **parts)
    draw = np.random.default_rng([71, progress.step])
    model.train()
    while progress.share < 1:
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (1 - progress.share) / FALL + 0.02)
        real = source.crops(draw)
        if progress.step % REVIVE_EVERY_STEPS == 0:
            revive_codes(model, encode_latents(model, real), LEAST_USE)
        made, penalty = autoencode(model, real)
        losses = {name: loss(made, real).squeeze() for name, loss in reconstruction.items()}
        learned: dict[str, Any] = {}
        if progress.step >= ADVERSARIES_FROM_STEP:
            further, learned = judge(adversaries, made[JUDGED], real[JUDGED])
            losses |= further
        optimizer.zero_grad()
        penalty.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        balancer.backward(losses, made)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        average.update(model, progress.step)
        values = {name: float(value.detach()) for name, value in (losses | learned).items()}
        progress.log(**values, penalty=float(penalty.detach()))
    progress.save()
