"""Trains the text-to-music, melody and text-to-sound models on codes of the trained codec.

Cross-entropy of every codebook under AudioCraft's delay pattern, as `solvers/musicgen.py` computes
it, with its dropout of conditions for guidance; but the first codebooks weigh more, since notes and
their beat are in them, and little training must do. The text encoder learns along with the music
model and is frozen for the others.
"""

import math
import shutil
from pathlib import Path

import numpy as np
import torch
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes as Conditions
from audiocraft.modules.conditioners import T5Conditioner, WavCondition
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from bundles.tiny.data import captions, effects, music
from bundles.tiny.data.store import Clips, clips
from bundles.tiny.recipe import (
    SAMPLE_RATE,
    add_melody,
    language_model_config,
    write_config_dtype,
    write_text_encoder,
)
from bundles.tiny.train.codec import trained_codec
from bundles.tiny.train.progress import Average, Progress, rounded
from engine.checkpoints import without_stem_separator
from engine.conditioning import use_text_encoder

CLIPS = {"music": 6000, "sound": 3000}
DATA = {"music": "music", "melody": "music", "sound": "sound"}
"""Which clips a model learns from."""
SECONDS = 10.0
SHAPES = {"music": (192, 8, 3), "melody": (160, 7, 5), "sound": (160, 6, 5)}
"""Width, layers, heads."""
BATCH, FRAMES, SAMPLES_PER_FRAME = 12, 500, 320
RATE, WARM_UP_STEPS = 1e-3, 200
WEIGHTS = (0.5, 0.25, 0.15, 0.1)
"""Of the codebooks, in the loss."""


def encode(codec: EncodecModel, work: Path, rendered: Clips, kind: str) -> NDArray[np.int16]:
    """Return the clips' codes, int16 [clips, codebooks, frames]; kept in the work folder."""
    path = work / "data" / f"{kind}-codes.npy"
    if not path.exists():
        parts = []
        with torch.inference_mode():
            for audio in np.array_split(rendered.audio, len(rendered.audio) // 2):
                batch = torch.from_numpy(audio.astype(np.float32) / 32768)[:, None]
                parts.append(codec.encode(batch)[0].numpy().astype(np.int16))
        np.save(path, np.concatenate(parts))
    codes: NDArray[np.int16] = np.load(path)
    return codes


def caption(kind: str, number: int, draw: np.random.Generator) -> str:
    """Draw one of the captions of a clip."""
    if kind == "music":
        return captions.describe_music(music.draw_piece(number), draw)
    return captions.describe_effect(effects.draw_effect(number), draw)


def config(kind: str, text_encoder: Path) -> DictConfig:
    """Return the model's configuration; only the music model trains its text encoder."""
    cfg = language_model_config(SECONDS)
    sizes = cfg.transformer_lm
    sizes.dim, sizes.num_layers, sizes.num_heads = SHAPES[kind]
    if kind == "melody":
        add_melody(cfg)
    use_text_encoder(cfg, str(text_encoder))
    cfg.conditioners.description.t5.finetune = kind == "music"
    return cfg


def build(cfg: DictConfig) -> LMModel:
    """Return the model, untrained; a melody is taken as it is, without a stem separator."""
    with without_stem_separator():
        model = builders.get_lm_model(cfg)
    if "self_wav" in cfg.conditioners:
        chroma = model.condition_provider.conditioners["self_wav"]
        chroma._get_stemmed_wav = lambda audio, sample_rate: audio
    return model


def export_text_encoder(work: Path, bundle: Path) -> None:
    """Write the encoder that the music stage trained into the bundle, in half precision."""
    model = build(config("music", work / "t5"))
    model.load_state_dict(torch.load(work / "music" / "state.pt", weights_only=True)["average"])
    encoder = model.condition_provider.conditioners["description"]
    assert isinstance(encoder, T5Conditioner)
    encoder.t5.half().save_pretrained(bundle / "t5")
    shutil.copy(work / "t5" / "spiece.model", bundle / "t5")
    write_config_dtype(bundle / "t5")


def attributes(kind: str, texts: list[str], audio: NDArray[np.int16]) -> list[Conditions]:
    """Return what AudioCraft conditions each clip on: its text, and for "melody" its own chroma."""
    conditions = [Conditions(text={"description": text}) for text in texts]
    if kind == "melody":
        for one, clip in zip(conditions, audio, strict=True):
            wave = torch.from_numpy(clip.astype(np.float32) / 32768)[None, None]
            one.wav["self_wav"] = WavCondition(
                wave, torch.tensor([wave.shape[-1]]), [SAMPLE_RATE], [None], [0.0]
            )
    return conditions


def cross_entropy(model: LMModel, codes: Tensor, conditions: list[Conditions]) -> Tensor:
    """Return each codebook's cross-entropy, [codebooks]."""
    with rounded():
        output = model.compute_predictions(codes, conditions)
    each = []
    pairs = zip(output.logits.unbind(1), codes.unbind(1), output.mask.unbind(1), strict=True)
    for logits, wanted, mask in pairs:
        known = int(mask[0].sum())  # the delay leaves a codebook's last frames unpredicted
        assert mask[:, :known].all()
        told = logits[:, :known].float().flatten(0, 1)
        each.append(functional.cross_entropy(told, wanted[:, :known].flatten()))
    return torch.stack(each)


def train(kind: str, work: Path, bundle: Path, budget_hours: float) -> None:
    """Train "music", "melody" or "sound" on the bundle's codec until the budget is spent."""
    torch.manual_seed(0)
    data = DATA[kind]
    rendered = clips(work, data, CLIPS[data])
    codes = encode(trained_codec(bundle), work, rendered, data)
    if kind == "music" and not (work / "t5").exists():
        write_text_encoder(work / "t5")
    text_encoder = work / "t5" if kind == "music" else bundle / "t5"
    model = build(config(kind, text_encoder)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    average = Average(model, 0.999)
    weights = torch.tensor(WEIGHTS)
    progress = Progress(work, kind, budget_hours, model=model, optimizer=optimizer, average=average)
    draw = np.random.default_rng([29, progress.step])
    while progress.share < 1:
        warm = min(1.0, (progress.step + 1) / WARM_UP_STEPS)
        cooled = 0.5 * (1 + math.cos(math.pi * progress.share))
        optimizer.param_groups[0]["lr"] = RATE * warm * max(0.02, cooled)
        which = draw.integers(len(codes), size=BATCH)
        # Half of the batches begin anywhere, as the windows of a long piece do.
        start = int(draw.integers(FRAMES // 2)) if draw.random() < 0.5 else 0
        batch = torch.from_numpy(codes[which, :, start:].astype(np.int64))
        texts = [caption(data, rendered.numbers[number], draw) for number in which]
        audio = rendered.audio[which, start * SAMPLES_PER_FRAME :]
        each = cross_entropy(model, batch, attributes(kind, texts, audio))
        optimizer.zero_grad()
        loss = each @ weights
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, progress.step)
        progress.log(loss=each.mean().item(), first=each[0].item(), last=each[-1].item())
    progress.save()
