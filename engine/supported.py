"""Refuses language models whose arithmetic is not the one that the decoder implements.

`tests/engine/test_supported.py` builds a model with each of AudioCraft's options, and compares the
codes of those that are let through with AudioCraft's.
"""

from audiocraft.models.lm import LMModel
from audiocraft.modules.codebooks_patterns import DelayedPatternProvider, ParallelPatternProvider
from audiocraft.modules.conditioners import ChromaStemConditioner, T5Conditioner
from torch import nn
from torch.nn import functional

from engine.conditioning import MELODY, TEXT
from engine.errors import CheckpointMismatch

PATTERNS = (DelayedPatternProvider, ParallelPatternProvider)
CONDITIONERS = {TEXT: T5Conditioner, MELODY: ChromaStemConditioner}


def check_supported(lm: LMModel) -> None:
    """Raise CheckpointMismatch if the model has an option that this engine does not implement."""
    for what, holds in (*_check_transformer(lm), *_check_pattern(lm), *_check_conditions(lm)):
        if not holds:
            raise CheckpointMismatch(f"this engine needs a model with {what}")


def _check_transformer(lm: LMModel) -> list[tuple[str, bool]]:
    transformer, first = lm.transformer, lm.transformer.layers[0]
    attention, cross = first.self_attn, first.cross_attention
    return [
        ("codes generated step by step, unlike MAGNeT", type(lm) is LMModel),
        ("causal attention", attention.causal),
        ("sinusoidal positions", transformer.positional_embedding == "sin"),
        ("norm_first", lm.out_norm is not None and first.norm_first),
        ("exact GELU", first.activation is functional.gelu),
        ("packed projections (custom or memory_efficient)", attention.custom),
        ("no attention biases", getattr(attention, "in_proj_bias", None) is None),
        ("no feed-forward biases", first.linear1.bias is None),
        ("no head biases", lm.linears[0].bias is None),
        ("no query or key norm", not attention.qk_layer_norm),
        ("no query or key norm in cross-attention", not (cross and cross.qk_layer_norm)),
        ("no repeated keys", attention.kv_repeat == 1),
        ("unlimited past_context", attention.past_context is None),
        ("no layer scale", isinstance(first.layer_scale_1, nn.Identity)),
        ("guidance in one step, not two_step_cfg", not lm.two_step_cfg),
    ]


def _check_pattern(lm: LMModel) -> list[tuple[str, bool]]:
    pattern = lm.pattern_provider
    return [
        ("plain delays", type(pattern) in PATTERNS),
        ("no flattened columns", not getattr(pattern, "flatten_first", 0)),
        ("no empty initial columns", not getattr(pattern, "empty_initial", 0)),
    ]


def _check_conditions(lm: LMModel) -> list[tuple[str, bool]]:
    conditioners, fused = lm.condition_provider.conditioners, lm.fuser.fuse2cond
    known = all(type(part) is CONDITIONERS.get(name) for name, part in conditioners.items())
    crossed, prepended = list(fused["cross"]), list(fused["prepend"])
    crosses = lm.transformer.layers[0].cross_attention is not None
    return [
        (f"a text ({TEXT}, T5) and at most a melody ({MELODY})", known and TEXT in conditioners),
        ("no conditions that are summed", not fused["sum"]),
        ("no conditions that are interpolated", not fused["input_interpolate"]),
        ("no condition but the text in cross-attention", crossed in ([], [TEXT])),
        ("each condition fused once", sorted([*crossed, *prepended]) == sorted(conditioners)),
        ("cross-attention where a condition uses it", crosses == bool(crossed)),
        ("no positions in cross-attention", not (crossed and lm.fuser.cross_attention_pos_emb)),
    ]
