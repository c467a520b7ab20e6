"""Trains the text-to-music and text-to-sound models on codes of the trained codec.

Cross-entropy of every codebook under AudioCraft's delay pattern, as `solvers/musicgen.py` computes
it, with its dropout of conditions for guidance. The text encoder learns along with the music model
and is frozen for the sound model.
"""

import math
from pathlib import Path

import numpy as np
import torch
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from bundles.tiny.data import captions, effects, music
from bundles.tiny.data.store import Clips, clips
from bundles.tiny.recipe import language_model_config, write_text_encoder
from bundles.tiny.train.codec import trained_codec
from bundles.tiny.train.progress import Average, Progress
from engine.conditioning import use_text_encoder

CLIPS = {"music": 9000, "sound": 3000}
SECONDS = 10.0
SHAPES = {"music": (192, 8, 6), "sound": (160, 6, 5)}
"""Width, layers, heads."""
BATCH, FRAMES = 12, 500
RATE, WARM_UP_STEPS = 1e-3, 200


def encode(codec: EncodecModel, work: Path, kind: str) -> tuple[list[int], NDArray[np.int16]]:
    """Return the clips' numbers and their codes, int16 [clips, codebooks, frames]."""
    rendered: Clips = clips(work, kind, CLIPS[kind])
    path = work / "data" / f"{kind}-codes.npy"
    if not path.exists():
        parts = []
        with torch.inference_mode():
            for audio in np.array_split(rendered.audio, len(rendered.audio) // 8):
                batch = torch.from_numpy(audio.astype(np.float32) / 32768)[:, None]
                parts.append(codec.encode(batch)[0].numpy().astype(np.int16))
        np.save(path, np.concatenate(parts))
    return rendered.numbers, np.load(path)


def caption(kind: str, number: int, draw: np.random.Generator) -> str:
    """Draw one of the captions of a clip."""
    if kind == "music":
        return captions.describe_music(music.draw_piece(number), draw)
    return captions.describe_effect(effects.draw_effect(number), draw)


def config(kind: str, text_encoder: Path, finetune: bool) -> DictConfig:
    """Return the model's configuration."""
    cfg = language_model_config(SECONDS)
    sizes = cfg.transformer_lm
    sizes.dim, sizes.num_layers, sizes.num_heads = SHAPES[kind]
    use_text_encoder(cfg, str(text_encoder))
    cfg.conditioners.description.t5.finetune = finetune
    return cfg


def cross_entropy(model: LMModel, codes: Tensor, texts: list[str]) -> Tensor:
    """Return each codebook's cross-entropy, [codebooks]."""
    attributes = [ConditioningAttributes(text={"description": text}) for text in texts]
    with torch.autocast("cpu", torch.bfloat16):
        output = model.compute_predictions(codes, attributes)
    pairs = zip(output.logits.unbind(1), codes.unbind(1), output.mask.unbind(1), strict=True)
    return torch.stack(
        [functional.cross_entropy(logits[m].float(), wanted[m]) for logits, wanted, m in pairs]
    )


def train(kind: str, work: Path, budget_hours: float) -> None:
    """Train "music" or "sound" until the budget is spent."""
    torch.manual_seed(0)
    numbers, codes = encode(trained_codec(work), work, kind)
    text_encoder = work / "t5"
    if not text_encoder.exists():
        write_text_encoder(text_encoder)
    cfg = config(kind, text_encoder, finetune=kind == "music")
    model = builders.get_lm_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    average = Average(model, 0.999)
    progress = Progress(work, kind, budget_hours, model=model, optimizer=optimizer, average=average)
    draw = np.random.default_rng([29, progress.step])
    while progress.share < 1:
        warm = min(1.0, (progress.step + 1) / WARM_UP_STEPS)
        cooled = 0.5 * (1 + math.cos(math.pi * progress.share))
        optimizer.param_groups[0]["lr"] = RATE * warm * max(0.02, cooled)
        which = draw.integers(len(numbers), size=BATCH)
        batch = torch.from_numpy(codes[which, :, :FRAMES].astype(np.int64))
        texts = [caption(kind, numbers[number], draw) for number in which]
        each = cross_entropy(model, batch, texts)
        optimizer.zero_grad()
        each.mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, progress.step)
        progress.log(loss=each.mean().item(), first=each[0].item(), last=each[-1].item())
    progress.save()
