"""Builds language models of the published shapes with random weights."""

from pathlib import Path

import torch
from audiocraft.models import builders
from audiocraft.models.lm import LMModel
from omegaconf import DictConfig

from bundles.tiny.recipe import TEXT_ENCODER, export, language_model_config
from engine.conditioning import use_text_encoder

# Layers, width, heads: `config/model/lm/model_scale` in AudioCraft's repository.
# "mini" is ours: it is fast enough for a benchmark with many clips on two cores.
SHAPES = {
    "mini": (6, 384, 6),
    "small": (24, 1024, 16),
    "medium": (48, 1536, 24),
    "large": (48, 2048, 32),
}
CARDINALITY, SAMPLE_RATE = 2048, 32000


def build_config(shape: str) -> DictConfig:
    """Build the configuration of a shape, with the embedded text encoder."""
    cfg = language_model_config(30.0)
    cfg.sample_rate = SAMPLE_RATE
    sizes = cfg.transformer_lm
    sizes.num_layers, sizes.dim, sizes.num_heads = SHAPES[shape]
    sizes.card = CARDINALITY
    return cfg


def build_language_model(
    shape: str, seed: int = 0, *, device: str = "cpu", dtype: str = "float32"
) -> LMModel:
    """Build a model without conditioners; a text is a cross-attention source [tokens, width]."""
    torch.manual_seed(seed)
    cfg = build_config(shape)
    cfg.conditioners = None
    cfg.device, cfg.dtype = device, dtype
    return builders.get_lm_model(cfg).eval()


def write_checkpoint(shape: str, folder: Path) -> None:
    """Write random weights and the text conditioner in the published layout."""
    torch.manual_seed(0)
    cfg = build_config(shape)
    use_text_encoder(cfg, TEXT_ENCODER)
    model = builders.get_lm_model(cfg)
    cfg.conditioners.description.t5.name = TEXT_ENCODER
    export(model, cfg, folder / "state_dict.bin")
