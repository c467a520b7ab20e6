"""Tests each option of AudioCraft's language models: the same codes, or a clear refusal."""

import inspect
from pathlib import Path

import pytest
from audiocraft.models.lm import LMModel
from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
from audiocraft.modules.conditioners import ConditionFuser
from audiocraft.modules.transformer import StreamingTransformer, StreamingTransformerLayer
from omegaconf import DictConfig, OmegaConf

from bundles.tiny import recipe
from engine.checkpoints import load_language_model
from engine.conditioning import build_attributes
from engine.engine import Engine, EngineSettings
from engine.errors import CheckpointMismatch
from engine.supported import check_supported
from tests import checkpoints as write
from tests.conftest import Checkpoints
from tests.engine.test_exactness import (
    Case,
    assert_same,
    build_request,
    generate_with_audiocraft,
    run_to_end,
    spread_logits,
)
from tests.parity import Parity

LM, DELAY = "transformer_lm", "codebooks_pattern.delay"
SAME: dict[str, dict[str, object]] = {
    "custom": {f"{LM}.custom": True, f"{LM}.memory_efficient": False},
    "attention_as_float32": {f"{LM}.attention_as_float32": True},
    "hidden_scale": {f"{LM}.hidden_scale": 3},
    "max_period": {f"{LM}.max_period": 500.0},
    "positional_scale": {f"{LM}.positional_scale": 0.3},
    "no positions": {f"{LM}.positional_scale": 0.0},
    "xpos without rope": {f"{LM}.xpos": True},
    "checkpointing": {f"{LM}.checkpointing": "torch"},
    "one head": {f"{LM}.num_heads": 1},
    "delays": {f"{DELAY}.delays": [1, 1, 2, 4]},
    "no delays": {f"{DELAY}.delays": [0, 0, 0, 0]},
    "parallel": {"codebooks_pattern.modeling": "parallel"},
    "text prepended": {"fuser.cross": [], "fuser.prepend": ["description"]},
}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "norm_first": ({f"{LM}.norm_first": False}, "norm_first"),
    "activation": ({f"{LM}.activation": "relu"}, "exact GELU"),
    "gated": ({f"{LM}.activation": "swiglu", f"{LM}.hidden_scale": 4}, "exact GELU"),
    "bias_attn": ({f"{LM}.bias_attn": True}, "no attention biases"),
    "bias_ff": ({f"{LM}.bias_ff": True}, "no feed-forward biases"),
    "bias_proj": ({f"{LM}.bias_proj": True}, "no head biases"),
    "not causal": ({f"{LM}.causal": False}, "causal"),
    "past_context": ({f"{LM}.past_context": 8}, "past_context"),
    "memory_efficient": ({f"{LM}.memory_efficient": False}, "packed projections"),
    "qk_layer_norm": ({f"{LM}.qk_layer_norm": True}, "no query or key norm"),
    "qk_layer_norm_cross": ({f"{LM}.qk_layer_norm_cross": True}, "norm in cross-attention"),
    "kv_repeat": ({f"{LM}.kv_repeat": 2}, "no repeated keys"),
    "layer_scale": ({f"{LM}.layer_scale": 0.1}, "no layer scale"),
    "rope": ({f"{LM}.positional_embedding": "rope"}, "sinusoidal positions"),
    "sin_rope": ({f"{LM}.positional_embedding": "sin_rope"}, "sinusoidal positions"),
    "two_step_cfg": ({f"{LM}.two_step_cfg": True}, "two_step_cfg"),
    "unroll": ({"codebooks_pattern.modeling": "unroll"}, "plain delays"),
    "coarse_first": ({"codebooks_pattern.modeling": "coarse_first"}, "plain delays"),
    "musiclm": ({"codebooks_pattern.modeling": "musiclm"}, "plain delays"),
    "flatten_first": ({f"{DELAY}.flatten_first": 2}, "no flattened columns"),
    "empty_initial": ({f"{DELAY}.empty_initial": 1}, "no empty initial columns"),
    "summed": ({"fuser.cross": [], "fuser.sum": ["description"]}, "no conditions that are summed"),
    "interpolated": (
        {"fuser.cross": [], "fuser.input_interpolate": ["description"]},
        "no conditions that are interpolated",
    ),
    "positions of the text": ({"fuser.cross_attention_pos_emb": True}, "no positions in cross"),
    "fused twice": ({"fuser.prepend": ["description"]}, "each condition fused once"),
    "nothing to cross": (
        {"fuser.cross": [], "fuser.prepend": ["description"], f"{LM}.cross_attention": True},
        "cross-attention where a condition uses it",
    ),
}  # fmt: skip


def build_variant(
    folder: Path, text_encoder: str, cfg: DictConfig, options: dict[str, object]
) -> LMModel:
    for key, value in options.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    cfg.transformer_lm.num_layers = 2
    write.write_language_model(folder, text_encoder, cfg)
    return spread_logits(load_language_model(str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize("name", SAME)
def test_an_option_that_is_let_through_changes_nothing(
    checkpoints: Checkpoints, tmp_path: Path, parity: Parity, name: str
):
    cfg = recipe.language_model_config(30.0)
    lm = build_variant(tmp_path, checkpoints.text_encoder, cfg, SAME[name])
    check_supported(lm)
    engine = Engine(lm, EngineSettings(max_slots=2, max_positions=120, prefill_chunk=7))
    for case in (Case(frames=20), Case(frames=20, prompt=5)):
        attributes = build_attributes(lm, case.text)
        request = build_request(lm, case, attributes)
        engine.scheduler.add_request(request)
        (codes,) = run_to_end(engine, [request])
        expected = generate_with_audiocraft(lm, case, attributes)
        assert_same(parity, "greedy codes by each option", expected, codes, case)


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_is_not_implemented_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, name: str
):
    options, needs = REFUSED[name]
    cfg = recipe.language_model_config(30.0)
    lm = build_variant(tmp_path, checkpoints.text_encoder, cfg, options)
    with pytest.raises(CheckpointMismatch, match=needs):
        check_supported(lm)


def test_a_melody_in_cross_attention_is_refused(checkpoints: Checkpoints, tmp_path: Path):
    """Its null condition is not zero, so the null row would have to attend to it."""
    options = {"fuser.cross": ["self_wav"], "fuser.prepend": ["description"]}
    lm = build_variant(tmp_path, checkpoints.text_encoder, write.melody_config(), options)
    with pytest.raises(CheckpointMismatch, match="no condition but the text in cross-attention"):
        check_supported(lm)


def test_another_conditioner_is_refused(checkpoints: Checkpoints, tmp_path: Path):
    cfg = recipe.language_model_config(30.0)
    table = {"n_bins": 8, "dim": 4, "tokenizer": "noop"}
    options = {"conditioners.genre": {"model": "lut", "lut": table}, "fuser.prepend": ["genre"]}
    lm = build_variant(tmp_path, checkpoints.text_encoder, cfg, options)
    with pytest.raises(CheckpointMismatch, match="at most a melody"):
        check_supported(lm)


def test_magnet_is_refused(checkpoints: Checkpoints, tmp_path: Path):
    """Its pattern is a parallel one, which is let through for a model that goes step by step."""
    options = {
        "lm_model": "transformer_lm_magnet", "codebooks_pattern.modeling": "parallel",
        f"{LM}.causal": False, f"{LM}.subcodes_context": 5, f"{LM}.span_len": 3,
        f"{LM}.compression_model_framerate": 50, f"{LM}.segment_duration": 2,
    }  # fmt: skip
    cfg = recipe.language_model_config(30.0)
    lm = build_variant(tmp_path, checkpoints.text_encoder, cfg, options)
    with pytest.raises(CheckpointMismatch, match="unlike MAGNeT"):
        check_supported(lm)


# These change training or where the model lies, or are tested by what the other tests build.
WITHOUT_EFFECT = {
    "self", "args", "kwargs", "device", "dtype", "dropout", "attention_dropout", "emb_lr", "lr",
    "weight_decay", "weight_init", "depthwise_init", "zero_bias_init", "cfg_dropout", "cfg_coef",
    "attribute_dropout", "layer_class", "rope", "norm",
    "pattern_provider", "condition_provider", "fuser", "n_q", "card", "dim", "d_model",
    "dim_feedforward", "num_layers", "fuse2cond", "cross_attention_pos_emb_scale",
}  # fmt: skip


def test_every_option_of_audiocraft_is_tested():
    classes = (
        LMModel, StreamingTransformer, StreamingTransformerLayer, ConditionFuser,
        DelayedPatternProvider,
    )  # fmt: skip
    options = {name for one in classes for name in inspect.signature(one.__init__).parameters}
    tried = [*SAME.values(), *(options for options, _ in REFUSED.values())]
    tested = {key.rpartition(".")[2] for options in tried for key in options}
    assert options - WITHOUT_EFFECT - tested == set()
