"""What the embedded models are: their configurations, tokenizer, and how they are written.

AudioCraft's keys and published layout; small enough for two cores to run them faster than real
time. `bundles.tiny.train` makes their weights.
"""

import io
import json
import string
from pathlib import Path

import audiocraft
import numpy as np
import sentencepiece
import torch
from audiocraft.models.encodec import EncodecModel
from omegaconf import DictConfig, OmegaConf
from torch import nn
from transformers import T5Config, T5EncoderModel

from bundles.tiny.data.captions import describe_effect, describe_music
from bundles.tiny.data.effects import draw_effect
from bundles.tiny.data.music import draw_piece

SEED = 2036
SAMPLE_RATE = 16000
CODEBOOKS, CARDINALITY = 4, 512
TEXT_ENCODER = "bundle:tiny/t5"
CAPTIONS = 2000
"""How many captions of music, and as many of sounds, the tokenizer is trained on."""


def write_tokenizer(folder: Path) -> None:
    """Train a sentencepiece tokenizer with T5's special tokens: pad 0, eos 1, unk 2, no bos."""
    draw = np.random.default_rng(SEED)
    texts = [describe_music(draw_piece(number), draw) for number in range(CAPTIONS)]
    texts += [describe_effect(draw_effect(number), draw) for number in range(CAPTIONS)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=768,
        character_coverage=1.0,
        required_chars=string.digits + string.ascii_letters + string.punctuation,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())


def write_text_encoder(folder: Path, width: int = 128) -> int:
    """Write tokenizer and an untrained T5 encoder; return the encoder's width."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    vocabulary = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    config = T5Config(
        vocab_size=vocabulary.vocab_size() + 128,  # T5's tokenizer adds 100 sentinels
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).half().save_pretrained(folder)
    write_config_dtype(folder)
    return width


def write_config_dtype(folder: Path) -> None:
    """Let an encoder that is stored in half precision compute in single: transformers obeys."""
    path = folder / "config.json"
    written = json.loads(path.read_text()) | {"dtype": "float32"}
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def codec_config(filters: int = 4) -> DictConfig:
    """Return a codec of 50 frames a second, with the keys of AudioCraft's `encodec/default`."""
    return OmegaConf.create(
        {
            "device": "cpu",
            "solver": "compression",
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "compression_model": "encodec",
            "encodec": {
                "autoencoder": "seanet", "quantizer": "rvq", "sample_rate": "${sample_rate}",
                "channels": "${channels}", "causal": False, "renormalize": False,
            },
            "seanet": {
                "dimension": 64, "channels": "${channels}", "causal": "${encodec.causal}",
                "n_filters": filters, "n_residual_layers": 1, "ratios": [8, 5, 4, 2],
                "activation": "ELU", "activation_params": {"alpha": 1.0}, "norm": "weight_norm",
                "norm_params": {}, "kernel_size": 7, "residual_kernel_size": 3,
                "last_kernel_size": 7, "dilation_base": 2, "pad_mode": "constant",
                "true_skip": True, "compress": 2, "lstm": 2, "disable_norm_outer_blocks": 0,
                "decoder": {
                    "trim_right_ratio": 1.0, "final_activation": None,
                    "final_activation_params": None,
                },
                "encoder": {},
            },
            "rvq": {
                "n_q": CODEBOOKS, "q_dropout": False, "bins": CARDINALITY, "decay": 0.99,
                "kmeans_init": True, "kmeans_iters": 50, "threshold_ema_dead_code": 2,
                "orthogonal_reg_weight": 0.0, "orthogonal_reg_active_codes_only": False,
            },
            "no_quant": {},
        }
    )  # fmt: skip


def language_model_config(seconds: float) -> DictConfig:
    """Return a text-conditioned LM, with the keys of AudioCraft's `lm/musicgen_lm`."""
    return OmegaConf.create(
        {
            "device": "cpu",
            "dtype": "float32",
            "solver": "musicgen",
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "compression_model_checkpoint": "bundle:tiny/codec",
            "compression_model_n_q": None,
            "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
            "dataset": {"segment_duration": seconds},
            "lm_model": "transformer_lm",
            "codebooks_pattern": {
                "modeling": "delay",
                "delay": {
                    "delays": list(range(CODEBOOKS)), "flatten_first": 0, "empty_initial": 0,
                },
            },
            "transformer_lm": {
                "dim": 64, "num_heads": 4, "num_layers": 4, "hidden_scale": 4,
                "n_q": CODEBOOKS, "card": CARDINALITY, "dropout": 0.0, "emb_lr": None,
                "activation": "gelu", "norm_first": True, "bias_ff": False, "bias_attn": False,
                "bias_proj": False, "past_context": None, "causal": True, "custom": False,
                "memory_efficient": True, "attention_as_float32": False, "layer_scale": None,
                "positional_embedding": "sin", "xpos": False, "checkpointing": "none",
                "weight_init": "gaussian", "depthwise_init": "current", "zero_bias_init": True,
                "norm": "layer_norm", "cross_attention": False, "qk_layer_norm": False,
                "qk_layer_norm_cross": False, "attention_dropout": None, "kv_repeat": 1,
                "two_step_cfg": False,
            },
            "classifier_free_guidance": {"training_dropout": 0.2, "inference_coef": 3.0},
            "attribute_dropout": {},
            "fuser": {
                "cross_attention_pos_emb": False, "cross_attention_pos_emb_scale": 1, "sum": [],
                "prepend": [], "cross": ["description"], "input_interpolate": [],
            },
            "conditioners": {
                "description": {
                    "model": "t5",
                    "t5": {
                        "name": TEXT_ENCODER, "finetune": False, "word_dropout": 0.0,
                        "normalize_text": False,
                    },
                }
            },
        }
    )  # fmt: skip


def add_melody(cfg: DictConfig) -> None:
    """Give a model AudioCraft's `conditioner/chroma2music`: chroma and text before the codes."""
    cfg.attribute_dropout = {
        "args": {"active_on_eval": False}, "text": {}, "wav": {"self_wav": 0.3},
    }  # fmt: skip
    cfg.fuser.cross, cfg.fuser.prepend = [], ["self_wav", "description"]
    cfg.conditioners.self_wav = {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": "${sample_rate}", "n_chroma": 12, "radix2_exp": 13, "argmax": True,
            "match_len_on_eval": True, "eval_wavs": None, "n_eval_wavs": 0, "cache_path": None,
        },
    }  # fmt: skip


def fill_codebooks(codec: EncodecModel) -> None:
    """Give untrained codebooks values; AudioCraft leaves them zero until k-means has run."""
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook
        book.embed.normal_()
        book.embed_avg.copy_(book.embed)
        book.inited.fill_(1)


def export(model: nn.Module, cfg: DictConfig, path: Path) -> None:
    """Write a checkpoint as `audiocraft/utils/export.py` does, in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    package = {
        "best_state": state,
        "xp.cfg": OmegaConf.to_yaml(cfg),
        "version": audiocraft.__version__,
        "exported": True,
    }
    torch.save(package, path)
