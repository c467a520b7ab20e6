"""Encodes the texts and melodies that AudioCraft's language models are conditioned on.

Source: `audiocraft/modules/conditioners.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import (
    ClassifierFreeGuidanceDropout,
    ConditioningAttributes,
    ConditionType,
    T5Conditioner,
    WavCondition,
)
from numpy.typing import NDArray
from omegaconf import DictConfig
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, T5EncoderModel, T5Tokenizer

from engine.errors import (
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    first_line,
)
from engine.sources import locate

MELODY = "self_wav"
"""AudioCraft's name for the melody condition."""
TEXT = "description"
"""AudioCraft's name for the text condition."""
TOKENIZER_FILES = ("spiece.model", "tokenizer.json")


def use_text_encoder(cfg: DictConfig, source: str | None) -> None:
    """Set the encoder of every T5 conditioner in `cfg` to `source`, or check the one it names.

    T5Conditioner accepts only the names and widths in its lists, so other encoders are added to
    them. Raises a CheckpointError if the encoder is missing, broken or not a T5.
    """
    for conditioner in (cfg.get("conditioners") or {}).values():
        if conditioner.get("model") != "t5":
            continue
        name = str(source or conditioner.t5.name)
        folder = None if name in T5Conditioner.MODELS else locate(name)
        name = str(folder or name)
        width = _check_text_encoder(name, folder)
        if name not in T5Conditioner.MODELS:
            T5Conditioner.MODELS.append(name)
            T5Conditioner.MODELS_DIMS[name] = width
        conditioner.t5.name = name


def _check_text_encoder(name: str, folder: Path | None) -> int:
    """Load a T5 encoder strictly, unlike T5Conditioner, to check it; return its width."""
    if folder and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise CheckpointNotFound(f"{name}: no tokenizer: add {' or '.join(TOKENIZER_FILES)}")
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "t5":
            raise CheckpointMismatch(f"{name}: config.json is of {config.model_type!r}, not 't5'")
        tokens = len(T5Tokenizer.from_pretrained(name))
        _, report = T5EncoderModel.from_pretrained(name, output_loading_info=True)
    except (OSError, httpx.HTTPError) as error:
        reason = f"no T5 text encoder there: {first_line(error)}"
        raise CheckpointNotFound(f"{name}: {reason}") from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        reason = f"broken text encoder: {first_line(error)}"
        raise CheckpointUnreadable(f"{name}: {reason}") from error
    if missing := {*report["missing_keys"], *report["mismatched_keys"]}:
        raise CheckpointMismatch(f"{name}: weights missing or misshapen: {sorted(missing)}")
    if tokens > config.vocab_size:
        raise CheckpointMismatch(f"{name}: {tokens} tokens, but {config.vocab_size} embeddings")
    return int(config.d_model)


def takes_melody(lm: LMModel) -> bool:
    """Return whether the model can follow a melody."""
    return MELODY in lm.condition_provider.conditioners


def count_melody_positions(lm: LMModel) -> int:
    """Return the positions that a melody takes before the first codes of a window."""
    return int(lm.condition_provider.conditioners[MELODY].chroma_len)


def count_prefix_positions(lm: LMModel, text_tokens: int) -> int:
    """Return the positions that a melody, and a text of so many tokens, take before the codes."""
    prepended = lm.fuser.fuse2cond["prepend"]
    melody = count_melody_positions(lm) if MELODY in prepended else 0
    return melody + (text_tokens if TEXT in prepended else 0)


def build_attributes(
    lm: LMModel, text: str, melody: NDArray[np.float32] | None = None
) -> ConditioningAttributes:
    """Build AudioCraft's conditioning attributes from a text and a melody [1, samples].

    Without a melody, a melody model gets the null melody, as in `MusicGen.generate`.
    """
    attributes = ConditioningAttributes(text={TEXT: text})
    if takes_melody(lm):
        wave = torch.zeros(1, 1, 1) if melody is None else torch.from_numpy(melody.copy())[None]
        length = 0 if melody is None else wave.shape[-1]
        device = next(lm.parameters()).device
        attributes.wav[MELODY] = WavCondition(
            wave.to(device),
            torch.tensor([length], device=device),
            sample_rate=[lm.cfg.sample_rate],
            path=[None],
            seek_time=[0.0],
        )
    return attributes


def cut_melody_window(melody: NDArray[np.float32], start: int, samples: int) -> NDArray[np.float32]:
    """Cut the part of a melody [1, samples] for one window; the melody repeats after its end.

    Source: `MusicGen._generate_tokens`.
    """
    return melody[:, np.arange(start, start + samples) % melody.shape[1]]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The encoded conditions of a request; all its variations share them."""

    text: Tensor | None
    """The conditional row's cross-attention source [tokens, width]; None if it is all zeros."""
    prefix: Tensor | None
    """Embeddings before the first code [2, positions, width]: conditional row, null row."""

    @property
    def empty(self) -> bool:
        """Whether the conditional and the null row are equal, so that guidance has no effect."""
        return self.text is None and self.prefix is None

    @property
    def prefix_length(self) -> int:
        """The number of positions before the first code."""
        return 0 if self.prefix is None else self.prefix.shape[1]


def encode_melody(lm: LMModel, melody: NDArray[np.float32]) -> ConditionType:
    """Encode a melody [1, samples] and its null row, which any texts can share."""
    with torch.no_grad():
        tokenized = _tokenize_attributes(lm, build_attributes(lm, "", melody))
        encoded: ConditionType = lm.condition_provider.conditioners[MELODY](tokenized[MELODY])
    return encoded


def encode_conditions(
    lm: LMModel, attributes: ConditioningAttributes, melody: ConditionType | None = None
) -> Conditions:
    """Encode the conditions as `LMModel.generate` does for a batch of one.

    An encoded `melody` replaces that of the attributes.
    """
    with torch.no_grad():
        tokenized = _tokenize_attributes(lm, attributes)
        if melody is not None:
            del tokenized[MELODY]
        tensors = lm.condition_provider(tokenized)
        if melody is not None:
            tensors[MELODY] = melody
        device = next(lm.parameters()).device
        fused, cross = lm.fuser(torch.zeros(2, 1, lm.dim, device=device), tensors)
    text = cross[0].float() if cross is not None and cross[0].any() else None
    return Conditions(text, fused[:, :-1].float() if fused.shape[1] > 1 else None)


def _tokenize_attributes(lm: LMModel, attributes: ConditioningAttributes) -> dict[str, Any]:
    """Return the input of each conditioner: the attributes, and their null row."""
    null = ClassifierFreeGuidanceDropout(p=1.0)([attributes])
    tokenized: dict[str, Any] = lm.condition_provider.tokenize([attributes, *null])
    return tokenized
