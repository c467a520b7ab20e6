"""Small checkpoints with the layout and configuration keys of each published family.

Keys and nesting are those that AudioCraft's `config/` gives its solvers (commit of March 2025),
with some of what a published `xp.cfg` holds beyond the model, since nobody may stumble on it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from audiocraft.models import builders
from omegaconf import DictConfig, OmegaConf

from bundles.tiny import recipe
from tests import checkpoints as write

SOLVER = {
    "fsdp": {"use": False, "param_dtype": "float16", "sharding_strategy": "shard_grad_op"},
    "autocast": True,
    "autocast_dtype": "float16",
    "tokens": {"padding_with_special_token": False},
    "cache": {"path": None, "write": False, "write_shard": 0, "write_num_shards": 1},
    "generate": {"every": 25, "lm": {"use_sampling": True, "top_k": 250, "top_p": 0.0}},
    "optim": {"epochs": 500, "optimizer": "dadam", "lr": 1, "ema": {"use": True, "updates": 10}},
    "schedule": {"lr_scheduler": "cosine", "cosine": {"warmup": 4000, "lr_min_ratio": 0.0}},
}
OTHER_PATTERNS = {
    "unroll": {"flattening": [0, 1, 2, 3], "delays": [0, 0, 0, 0]},
    "music_lm": {"group_by": 2},
    "coarse_first": {"delays": [0, 0, 0]},
}
CARDINALITY = 2048


@dataclass(frozen=True)
class Family:
    """What sets a published language model apart, layers and widths aside."""

    kind: str = "musicgen"
    sample_rate: int = 32000
    seconds: float = 30.0
    stereo: bool = False
    melody: bool = False
    scale: dict[str, int] = field(default_factory=lambda: {"dim": 64, "num_heads": 1})
    """Small, medium and large differ in width, heads (of 64) and layers alone."""


MEDIUM, LARGE = {"dim": 96, "num_heads": 2}, {"dim": 128, "num_heads": 2}
FAMILIES = {
    "musicgen-small": Family(),
    "musicgen-medium": Family(scale=MEDIUM),
    "musicgen-large": Family(scale=LARGE),
    "musicgen-melody": Family(scale=MEDIUM, melody=True),
    "musicgen-melody-large": Family(scale=LARGE, melody=True),
    "musicgen-stereo-small": Family(stereo=True),
    "musicgen-stereo-medium": Family(stereo=True, scale=MEDIUM),
    "musicgen-stereo-large": Family(stereo=True, scale=LARGE),
    "musicgen-stereo-melody": Family(stereo=True, scale=MEDIUM, melody=True),
    "musicgen-stereo-melody-large": Family(stereo=True, scale=LARGE, melody=True),
    "audiogen-medium": Family("audiogen", sample_rate=16000, seconds=10.0, scale=MEDIUM),
}


def codec_config(sample_rate: int) -> DictConfig:
    """Return `encodec_large_nq4_s640` (32 kHz) or `_s320` (16 kHz), with few filters."""
    cfg = recipe.codec_config()
    cfg.sample_rate = sample_rate
    cfg.seanet.ratios = [8, 5, 4, 4] if sample_rate == 32000 else [8, 5, 4, 2]
    cfg.seanet.dimension = 128
    cfg.rvq.bins = CARDINALITY
    return OmegaConf.merge(cfg, {"losses": {"adv": 4.0}, "adversarial": {"every": 1}})


def language_model_config(family: Family) -> DictConfig:
    """Return `musicgen_base_32khz`, `musicgen_melody_32khz` or `audiogen_base_16khz`."""
    cfg = write.melody_config() if family.melody else recipe.language_model_config(30.0)
    cfg.solver, cfg.sample_rate = family.kind, family.sample_rate
    cfg.channels = 2 if family.stereo else 1
    cfg.dataset = {"batch_size": 192, "segment_duration": family.seconds, "return_info": True}
    cfg.interleave_stereo_codebooks.use = family.stereo
    cfg.codebooks_pattern = OmegaConf.merge(cfg.codebooks_pattern, OTHER_PATTERNS)
    cfg.transformer_lm.card, cfg.transformer_lm.num_layers = CARDINALITY, 2
    if family.stereo:
        cfg.transformer_lm.n_q = 8
        cfg.codebooks_pattern.delay.delays = [0, 0, 1, 1, 2, 2, 3, 3]
    cfg.transformer_lm = OmegaConf.merge(cfg.transformer_lm, family.scale)
    if family.melody:
        cfg.conditioners.self_wav.chroma_stem.radix2_exp = 14
    return OmegaConf.merge(cfg, SOLVER)


def write_family(name: str, text_encoder: str, folder: Path) -> Family:
    """Write a family's two files, as its repository has them."""
    family = FAMILIES[name]
    cfg = codec_config(family.sample_rate)
    codec = builders.get_compression_model(cfg)
    recipe.fill_codebooks(codec)
    recipe.export(codec, cfg, folder / "compression_state_dict.bin")
    write.write_language_model(folder, text_encoder, language_model_config(family))
    return family
