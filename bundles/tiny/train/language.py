"""Trains the text-to-music, melody and text-to-sound models on codes of the trained codec.

Cross-entropy of every codebook under AudioCraft's delay pattern, as `solvers/musicgen.py` computes
it, with its dropout of conditions for guidance; but the first codebooks weigh more, since notes and
their beat are in them, and little training must do. The text encoder learns along with the music
model and is frozen for the others. Where music is learnt on, so is the encoder, but for what it
makes of captions of sounds, which the sound model goes by.

What a clip is, the text tells only while little of the clip is known: of a clip of 10 s the model
learns it from the first frames alone. So every other batch is of short crops, as many frames in
all.
What a model hears before a frame is not always what was there: see `hearing.py`.
The matrices of the layers learn by Muon (orthogonalised momentum, Jordan et al., 2024).
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
"""Which clips a model learns from."""
SECONDS = 10.0
SHAPES = {"music": (192, 8, 3), "melody": (192, 8, 3), "sound": (160, 6, 5)}
"""Width, layers, heads."""
BEGINS_AS = {"melody": "music"}
"""What a model is before its own training; it has no cross-attention to take over."""
WAVELENGTHS_AN_OCTAVE = 15
"""Of the positions of music. From 2π frames on, these fall on the sixteenths, beats and bars of all
four tempi to within 1 %, so that a beat is a sum of few of them; 6.3 octaves reach a window's end.
AudioCraft's are spread up to a thousand times as long."""
BATCH, FRAMES, SAMPLES_PER_FRAME = 6, 500, 320
CROP = 100
"""Frames of the short crops."""
Windows = tuple[NDArray[np.int64], NDArray[np.int64], int]
"""Of clips: which, from which frames on, and how many frames of each."""
RATE, WARM_UP_STEPS, KEPT = 1e-3, 200, 10.0
WEIGHTS = (0.5, 0.25, 0.15, 0.1)
"""Of the codebooks, in the loss."""


def encode_clips(codec: EncodecModel, work: Path, rendered: Clips, kind: str) -> NDArray[np.int16]:
    """Return the clips' codes, int16 [clips, codebooks, frames]; kept in the work folder."""
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
    """Draw one of the captions of a clip."""
    if kind == "music":
        return captions.describe_music(music.draw_piece(number), draw)
    return captions.describe_effect(effects.draw_effect(number), draw)


def build_config(kind: str, text_encoder: Path, finetune: bool = False) -> DictConfig:
    """Return the model's configuration; `finetune`: whether its text encoder learns with it."""
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
    """Return the model, untrained; a melody is taken as it is, without a stem separator."""
    with without_stem_separator():
        model = builders.get_lm_model(cfg)
    if "self_wav" in cfg.conditioners:
        chroma = model.condition_provider.conditioners["self_wav"]
        chroma._get_stemmed_wav = lambda audio, sample_rate: audio
    return model


def get_text_encoder(model: LMModel) -> T5Conditioner:
    """Return the model's text encoder."""
    encoder = model.condition_provider.conditioners["description"]
    assert isinstance(encoder, T5Conditioner)
    return encoder


def export_text_encoder(work: Path, bundle: Path) -> None:
    """Write the encoder that the music stage trained into the bundle, in half precision."""
    model = build_model(build_config("music", work / "t5", finetune=True))
    model.load_state_dict(torch.load(work / "music" / "state.pt", weights_only=True)["average"])
    get_text_encoder(model).t5.half().save_pretrained(bundle / "t5")
    shutil.copy(work / "t5" / "spiece.model", bundle / "t5")
    write_config_dtype(bundle / "t5")


class KeptForSounds:
    """How far a text encoder has gone from what it was at first, for captions of sounds."""

    def __init__(self, encoder: T5Conditioner) -> None:
        self._encoder, self._first = encoder, deepcopy(encoder.t5)

    def __call__(self, draw: np.random.Generator) -> Tensor:
        """Return the mean squared difference of some captions' hidden states."""
        which = draw.integers(CLIPS["sound"], size=32)
        texts = [draw_caption("sound", int(number), draw) for number in which]
        tokens = self._encoder.t5_tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            wanted = self._first(**tokens).last_hidden_state
        made = self._encoder.t5(**tokens).last_hidden_state
        return functional.mse_loss(made, wanted)


def build_attributes(kind: str, texts: list[str], audio: NDArray[np.int16]) -> list[Conditions]:
    """Return what AudioCraft conditions each clip on: its text, and for "melody" its own chroma."""
    conditions = [Conditions(text={"description": text}) for text in texts]
    if kind == "melody":
        for one, clip in zip(conditions, audio, strict=True):
            wave = torch.from_numpy(clip.astype(np.float32) / 32768)[None, None]
            one.wav["self_wav"] = WavCondition(
                wave, torch.tensor([wave.shape[-1]]), [SAMPLE_RATE], [None], [0.0]
            )
    return conditions


def build_optimizers(model: LMModel) -> dict[str, torch.optim.Optimizer]:
    """Return Muon for the layers' matrices, at AdamW's rates, and AdamW for all else."""
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


def copy_weights(model: LMModel, other: str, bundle: Path) -> None:
    """Give a model the weights of one in the bundle, where it has such."""
    package = torch.load(bundle / other / LANGUAGE_MODEL_FILE, weights_only=True)
    own = model.state_dict()
    model.load_state_dict(own | {k: v for k, v in package["best_state"].items() if k in own})


def bar_lengths(data: str, numbers: list[int]) -> NDArray[np.int64]:
    """Return how many frames a bar of each clip lasts; of sounds, which have none, 1."""
    if data == "sound":
        return np.ones(len(numbers), np.int64)
    return np.array([16 * music.TEMPI[music.draw_piece(number).tempo] for number in numbers])


def draw_windows(bars: NDArray[np.int64], draw: np.random.Generator) -> Iterator[Windows]:
    """Yield, of clips with such bars, which to take, from which frames and how many, without end.

    Whole ones and short crops by turns. Crops begin with a bar, so that where a beat falls can be
    told from the text; of the whole ones a tenth begin anywhere, as windows of a long piece do.
    """
    while True:
        start = int(draw.integers(FRAMES // 2)) if draw.random() < 0.1 else 0
        yield draw.integers(len(bars), size=BATCH), np.full(BATCH, start), FRAMES - start
        which = draw.integers(len(bars), size=BATCH * FRAMES // CROP)
        beginnings = (FRAMES - CROP) // bars[which] + 1
        yield which, bars[which] * draw.integers(beginnings), CROP


def cut_windows(of: NDArray[np.int16], which: Windows, per_frame: int = 1) -> NDArray[np.int16]:
    """Return these windows of clips, [clips, ..., frames times `per_frame`]."""
    clips, starts, frames = which
    ends = (starts + frames) * per_frame
    pairs = zip(clips, starts * per_frame, ends, strict=True)
    return np.stack([of[clip, ..., start:end] for clip, start, end in pairs])


def train(
    kind: str, work: Path, bundle: Path, budget_hours: float, from_bundle: bool = False
) -> None:
    """Train "music", "melody" or "sound" on the bundle's codec until the budget is spent.

    `from_bundle`: begin with the weights that are there, instead of new ones.
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
    kept = KeptForSounds(get_text_encoder(model)) if with_text and from_bundle else None
    if kept:
        get_text_encoder(model).t5.eval()  # without dropout, whose noise would count
    if begins_as := kind if from_bundle else BEGINS_AS.get(kind):
        copy_weights(model, begins_as, bundle)
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
        if kept:
            loss = loss + KEPT * kept(draw)
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
