"""Language models of the published shapes with random weights, and no conditioner."""

import torch
from audiocraft.models import builders
from audiocraft.models.lm import LMModel

from bundles.tiny.recipe import language_model_config

# Layers, width, heads: `config/model/lm/model_scale` in AudioCraft's repository.
SHAPES = {"small": (24, 1024, 16), "medium": (48, 1536, 24), "large": (48, 2048, 32)}
CARDINALITY = 2048


def language_model(
    shape: str, seed: int = 0, *, device: str = "cpu", dtype: str = "float32"
) -> LMModel:
    """Build a model; its text is given as a cross-attention source [tokens, width]."""
    torch.manual_seed(seed)
    cfg = language_model_config(30.0)
    sizes = cfg.transformer_lm
    sizes.num_layers, sizes.dim, sizes.num_heads = SHAPES[shape]
    sizes.card = CARDINALITY
    cfg.conditioners = None
    cfg.device, cfg.dtype = device, dtype
    return builders.get_lm_model(cfg).eval()
