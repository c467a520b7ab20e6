"""Text conditions for AudioCraft's language models (`audiocraft/modules/conditioners.py`)."""

import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes, T5Conditioner, WavCondition
from omegaconf import DictConfig
from transformers import AutoConfig

from engine.errors import CheckpointNotFound, first_line
from engine.sources import locate


def use_text_encoder(cfg: DictConfig, source: str | None) -> None:
    """Point every T5 conditioner in `cfg` at `source`, or at the one that it names itself.

    T5Conditioner takes only the names and widths that it lists, so others are entered in its
    list. Raises CheckpointNotFound where there is no such encoder.
    """
    for conditioner in (cfg.get("conditioners") or {}).values():
        if conditioner.get("model") != "t5":
            continue
        name = source or conditioner.t5.name
        if name not in T5Conditioner.MODELS:
            name = str(locate(name) or name)
            _register(name)
        conditioner.t5.name = name


def _register(name: str) -> None:
    try:
        width = AutoConfig.from_pretrained(name).d_model
    except (OSError, ValueError) as error:
        reason = f"no T5 text encoder there: {first_line(error)}"
        raise CheckpointNotFound(f"{name}: {reason}") from error
    if name not in T5Conditioner.MODELS:
        T5Conditioner.MODELS.append(name)
    T5Conditioner.MODELS_DIMS[name] = width


def text_attributes(lm: LMModel, text: str) -> ConditioningAttributes:
    """Return AudioCraft's attributes for one text.

    A melody model gets the null melody that `MusicGen.generate` gives it.
    """
    attributes = ConditioningAttributes(text={"description": text})
    if "self_wav" in lm.condition_provider.conditioners:
        device = next(lm.parameters()).device
        attributes.wav["self_wav"] = WavCondition(
            torch.zeros((1, 1, 1), device=device),
            torch.tensor([0], device=device),
            sample_rate=[lm.cfg.sample_rate],
            path=[None],
        )
    return attributes
