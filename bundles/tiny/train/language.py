"""Trains the text-to-music, melody and text-to-sound models on codes of the trained codec.

The loss is the cross-entropy of every codebook under AudioCraft's delay pattern, with dropout of
conditions for guidance, as in `solvers/musicgen.py`. The first codebooks weigh more, because they
hold the notes and the beat and the training is short. The text encoder is trained with the music
model and frozen for the others. When the music model is trained further, a penalty keeps the
encoder's output for captions of sounds, because the sound model depends on it.

The text matters only while little of a clip is known, so from a clip of 10 s the model learns it
in the first frames only. Therefore every other batch consists of short crops, with as many frames.
The past is not always the true one: see `hearing.py`. The matrices of the layers are trained with
Muon (orthogonalised momentum, Jordan et al., 2024).
"""

import math
import shutil
from collections.abc import Iterator
from copy import deepcopy
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
from bundles.tiny.train.hearing import build_past, compute_losses
from bundles.tiny.train.progress import Average, Progress
from engine.checkpoints import LANGUAGE_MODEL_FILE, without_stem_separator
from engine.conditioning import use_text_encoder

CLIPS = {"music": 6000, "melody": 3000, "sound": 3000}
DATA = {"music": "music", "melody": "music", "sound": "sound"}
"""The kind of clips that each model learns from."""
SECONDS = 10.0
SHAPES = {"music": (192, 8, 3), "melody": (192, 8, 3), "sound": (160, 6, 5)}
"""Width, layers and heads of each model."""
ORIGINS = {"melody": "music"}
"""The model whose weights a new model starts from; "melody" has no cross-attention."""
WAVELENGTHS_AN_OCTAVE = 15
"""Wavelengths per octave of the positional encoding for music. From 2π frames on, they match the
sixteenths, beats and bars of all four tempi to within 1 %, so that a beat is a sum of few of them;
6.3 octaves reach the end of a window. AudioCraft's longest are a thousand times as long."""
BATCH, FRAMES, SAMPLES_PER_FRAME = 6, 500, 320
CROP = 100
"""Frames of a short crop."""
Windows = tuple[NDArray[np.int64], NDArray[np.int64], int]
"""Windows of clips: indices of the clips, first frames, and the number of frames of each."""
RATE, WARM_UP_STEPS, PENALTY_WEIGHT = 1e-3, 200, 10.0
WEIGHTS = (0.5, 0.25, 0.15, 0.1)
"""Weights of the codebooks in the loss."""


def encode_clips(codec: EncodecModel, work: Path, rendered: Clips, kind: str) -> NDArray[np.int16]:
    """Encode clips to int16 [clips, codebooks, frames], and store the codes in the work folder."""
    path = work / "data" / f"{kind}-codes-{len(rendered.numbers)}.npy"
    if not path.exists():
        parts = []
        with torch.inference_mode():
            for audio in np.array_split(rendered.audio, len(rendered.audio) // 2):
                batch = torch.from_numpy(audio.astype(np.float32) / 32768)[:, None]
                parts.append(codec.encode(batch)[0].numpy().astype(np.int16))
        np.save(path, np.concatenate(parts))
    codes: NDArray[np.int16] = np.load(path)
    return codes


def draw_caption(kind: str, number: int, draw: np.random.Generator) -> str:
    """Draw a caption of the clip with this number."""
    if kind == "music":
        return captions.describe_music(music.draw_piece(number), draw)
    return captions.describe_effect(effects.draw_effect(number), draw)


def build_config(kind: str, text_encoder: Path, finetune: bool = False) -> DictConfig:
    """Build a model's configuration; with `finetune`, its text encoder is trained too."""
    cfg = language_model_config(SECONDS)
    sizes = cfg.transformer_lm
    sizes.dim, sizes.num_layers, sizes.num_heads = SHAPES[kind]
    if DATA[kind] == "music":
        sizes.max_period = 2 ** ((sizes.dim // 2 - 1) / WAVELENGTHS_AN_OCTAVE)
    if kind == "melody":
        add_melody(cfg)
    use_text_encoder(cfg, str(text_encoder))
    cfg.conditioners.description.t5.finetune = finetune
    return cfg


def build_model(cfg: DictConfig) -> LMModel:
    """Build an untrained model, without a stem separator for melodies."""
    with without_stem_separator():
        model = builders.get_lm_model(cfg)
    if "self_wav" in cfg.conditioners:
        chroma = model.condition_provider.conditioners["self_wav"]
        chroma._get_stemmed_wav = lambda audio, sample_rate: audio
    return model


def get_text_encoder(model: LMModel) -> T5Conditioner:
    """Return the text encoder of a model."""
    encoder = model.condition_provider.conditioners["description"]
    assert isinstance(encoder, T5Conditioner)
    return encoder


def export_text_encoder(work: Path, bundle: Path) -> None:
    """Write the text encoder of the music stage into the bundle, in half precision."""
    model = build_model(build_config("music", work / "t5", finetune=True))
    model.load_state_dict(torch.load(work / "music" / "state.pt", weights_only=True)["average"])
    get_text_encoder(model).t5.half().save_pretrained(bundle / "t5")
    shutil.copy(work / "t5" / "spiece.model", bundle / "t5")
    write_config_dtype(bundle / "t5")


class SoundCaptionPenalty:
    """A penalty for changes of a text encoder's output for captions of sounds."""

    def __init__(self, encoder: T5Conditioner) -> None:
        self._encoder, self._first = encoder, deepcopy(encoder.t5)

    def __call__(self, draw: np.random.Generator) -> Tensor:
        """Return the mean squared change of the hidden states of random captions."""
        which = draw.integers(CLIPS["sound"], size=32)
        texts = [draw_caption("sound", int(number), draw) for number in which]
        tokens = self._encoder.t5_tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            wanted = self._first(**tokens).last_hidden_state
        made = self._encoder.t5(**tokens).last_hidden_state
        return functional.mse_loss(made, wanted)


def build_attributes(kind: str, texts: list[str], audio: NDArray[np.int16]) -> list[Conditions]:
    """Build the conditions of each clip: its text, and for "melody" its own audio."""
    conditions = [Conditions(text={"description": text}) for text in texts]
    if kind == "melody":
        for one, clip in zip(conditions, audio, strict=True):
            wave = torch.from_numpy(clip.astype(np.float32) / 32768)[None, None]
            one.wav["self_wav"] = WavCondition(
                wave, torch.tensor([wave.shape[-1]]), [SAMPLE_RATE], [None], [0.0]
            )
    return conditions


def build_optimizers(model: LMModel) -> dict[str, torch.optim.Optimizer]:
    """Build Muon, at AdamW's rates, for the layers' matrices, and AdamW for all other weights."""
    matrices, rest = list[Tensor](), list[Tensor]()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            in_layer = name.startswith("transformer.layers.") and weight.ndim == 2
            (matrices if in_layer else rest).append(weight)
    muon = torch.optim.Muon(
        matrices, lr=RATE, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    return {"muon": muon, "adamw": adamw}


def copy_shared_weights(model: LMModel, other: str, bundle: Path) -> None:
    """Copy the weights of a model in the bundle to all keys that exist in both models."""
    package = torch.load(bundle / other / LANGUAGE_MODEL_FILE, weights_only=True)
    own = model.state_dict()
    model.load_state_dict(own | {k: v for k, v in package["best_state"].items() if k in own})


def bar_lengths(data: str, numbers: list[int]) -> NDArray[np.int64]:
    """Return the frames per bar of each clip; for sounds, which have no bars, 1."""
    if data == "sound":
        return np.ones(len(numbers), np.int64)
    return np.array([16 * music.TEMPI[music.draw_piece(number).tempo] for number in numbers])


def draw_windows(bars: NDArray[np.int64], draw: np.random.Generator) -> Iterator[Windows]:
    """Yield batches of windows without end, whole clips and short crops in turn.

    Crops begin with a bar, so that the position of a beat follows from the text. A tenth of the
    whole clips begin at a random frame, as the windows of a long piece do.
    """
    while True:
        start = int(draw.integers(FRAMES // 2)) if draw.random() < 0.1 else 0
        yield draw.integers(len(bars), size=BATCH), np.full(BATCH, start), FRAMES - start
        which = draw.integers(len(bars), size=BATCH * FRAMES // CROP)
        beginnings = (FRAMES - CROP) // bars[which] + 1
        yield which, bars[which] * draw.integers(beginnings), CROP


def cut_windows(of: NDArray[np.int16], which: Windows, per_frame: int = 1) -> NDArray[np.int16]:
    """Cut windows out of clips; return [clips, ..., frames x `per_frame`]."""
    clips, starts, frames = which
    ends = (starts + frames) * per_frame
    pairs = zip(clips, starts * per_frame, ends, strict=True)
    return np.stack([of[clip, ..., start:end] for clip, start, end in pairs])


def train(
    kind: str, work: Path, bundle: Path, budget_hours: float, from_bundle: bool = False
) -> None:
    """Train "music", "melody" or "sound" on the bundle's codec until the budget is spent.

    With `from_bundle`, the training starts from the weights in the bundle.
    """
    torch.manual_seed(0)
    data = DATA[kind]
    rendered = clips(work, data, CLIPS[kind])
    codes = encode_clips(trained_codec(bundle), work, rendered, data)
    with_text = kind == "music"
    if with_text and not (work / "t5").exists():
        if from_bundle:
            shutil.copytree(bundle / "t5", work / "t5")
        else:
            write_text_encoder(work / "t5")
    text_encoder = work / "t5" if with_text else bundle / "t5"
    model = build_model(build_config(kind, text_encoder, finetune=with_text)).train()
    penalty = SoundCaptionPenalty(get_text_encoder(model)) if with_text and from_bundle else None
    if penalty:
        get_text_encoder(model).t5.eval()  # no dropout, since its noise would add to the penalty
    if origin := kind if from_bundle else ORIGINS.get(kind):
        copy_shared_weights(model, origin, bundle)
    by_name = build_optimizers(model)
    average = Average(model, 0.999)
    weights = torch.tensor(WEIGHTS)
    progress = Progress(work, kind, budget_hours, model=model, average=average, **by_name)
    draw = np.random.default_rng([29, progress.step])
    for which in draw_windows(bar_lengths(data, rendered.numbers), draw):
        if progress.share == 1:
            break
        warm = min(1.0, (progress.step + 1) / WARM_UP_STEPS)
        cooled = 0.5 * (1 + math.cos(math.pi * progress.share))
        batch = torch.from_numpy(cut_windows(codes, which).astype(np.int64))
        texts = [draw_caption(data, rendered.numbers[clip], draw) for clip in which[0]]
        audio = cut_windows(rendered.audio, which, SAMPLES_PER_FRAME)
        conditions = build_attributes(kind, texts, audio)
        heard = build_past(model, batch, conditions, progress.share, draw)
        each = compute_losses(model, batch, heard, conditions)
        loss = each @ weights
        if penalty:
            loss = loss + PENALTY_WEIGHT * penalty(draw)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in by_name.values():
            optimizer.param_groups[0]["lr"] = RATE * warm * max(0.02, cooled)
            optimizer.step()
            optimizer.zero_grad()
        average.update(model, progress.step)
        what = "crop" if batch.shape[-1] == CROP else "loss"
        progress.log(**{what: each.mean().item(), f"{what}_first": each[0].item()})
    progress.save()
