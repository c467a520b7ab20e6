"""Writes small checkpoints of exactly the published layout, for the tests to load."""

from pathlib import Path

import torch
from audiocraft.models import builders
from audiocraft.models.encodec import CompressionModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import T5Conditioner
from audiocraft.solvers import builders as solver_builders
from omegaconf import DictConfig, OmegaConf

from bundles.tiny import recipe
from engine.checkpoints import without_stem_separator


def write_text_encoder(folder: Path) -> str:
    """Write a T5 and make its name one that AudioCraft itself accepts."""
    width = recipe.write_text_encoder(folder)
    T5Conditioner.MODELS.append(str(folder))
    T5Conditioner.MODELS_DIMS[str(folder)] = width
    return str(folder)


def write_codec(folder: Path) -> CompressionModel:
    cfg = recipe.codec_config()
    codec = builders.get_compression_model(cfg)
    recipe.fill_codebooks(codec)
    recipe.export(codec, cfg, folder / "compression_state_dict.bin")
    return codec.eval()


def write_language_model(
    folder: Path, text_encoder: str, cfg: DictConfig | None = None, seconds: float = 30.0
) -> LMModel:
    cfg = recipe.language_model_config(seconds) if cfg is None else cfg
    cfg.conditioners.description.t5.name = text_encoder
    with without_stem_separator():
        model = builders.get_lm_model(cfg)
    recipe.export(model, cfg, folder / "state_dict.bin")
    return model.eval()


def melody_config() -> DictConfig:
    """Return musicgen-melody's conditioning, with the keys of `conditioner/chroma2music`."""
    cfg = recipe.language_model_config(30.0)
    cfg.attribute_dropout = {
        "args": {"active_on_eval": False}, "text": {}, "wav": {"self_wav": 0.5},
    }  # fmt: skip
    cfg.fuser.cross, cfg.fuser.prepend = [], ["self_wav", "description"]
    cfg.conditioners.self_wav = {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": "${sample_rate}", "n_chroma": 12, "radix2_exp": 11, "argmax": True,
            "match_len_on_eval": False, "eval_wavs": None, "n_eval_wavs": 100,
            "cache_path": "/nowhere",
        },
    }  # fmt: skip
    cfg.conditioners.args = {"merge_text_conditions_p": 0.25, "drop_desc_p": 0.5}
    return cfg


def write_diffusion(path: Path, bands: int = 2) -> list[dict[str, torch.Tensor]]:
    """Write a multi-band diffusion file; return each band's U-Net weights."""
    package: dict[object, object] = {"sample_rate": 16000, "n_bands": bands}
    states = []
    for band in range(bands):
        cfg = OmegaConf.create(
            {
                "channels": 1,
                "schedule": {"num_steps": 1000, "beta_t1": 0.03, "beta_exp": 7.5},
                "diffusion_unet": {
                    "hidden": 8, "depth": 2, "res_blocks": 1, "norm_groups": 4, "kernel": 8,
                    "stride": 4, "growth": 2.0, "max_channels": 32, "dropout": 0.0,
                    "bilstm": False, "transformer": False, "codec_dim": 64,
                    "cross_attention": False, "emb_all_layers": True,
                },
                "processor": {
                    "use": True, "name": "multi_band_processor", "n_bands": 4, "num_samples": 10,
                    "power_std": 1.0,
                },
            }
        )  # fmt: skip
        model = builders.get_diffusion_model(cfg)
        processor = builders.get_processor(cfg.processor, 16000)
        # As a training leaves them: levels of bands, measured.
        levels = {"counts": 10.0, "sum_x": 0.0, "sum_x2": 0.5, "sum_target_x2": 2.0}
        for name, level in levels.items():
            getattr(processor, name).fill_(level)
        states.append(model.state_dict())
        package[band] = {
            "cfg": cfg,
            "model_state": model.state_dict(),
            "processor_state": processor.state_dict(),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(package, path)
    return states


def adversaries_config() -> DictConfig:
    """Return narrow adversaries, with the keys of `config/solver/compression` ."""
    adam = {"optimizer": "adam", "lr": 1e-4, "adam": {"betas": [0.5, 0.9]}}
    slope = {"activation": "LeakyReLU", "activation_params": {"negative_slope": 0.3}}
    return OmegaConf.create(
        {
            "device": "cpu", "sample_rate": 16000, "channels": 1, "l1": {}, "optim": adam,
            "adversarial": {
                "every": 1, "adversaries": ["msstftd", "mpd", "msd"], "adv_loss": "hinge",
                "feat_loss": "l1", "normalize": True, "optim": adam,
            },
            "mpd": {
                "in_channels": 1, "out_channels": 1, "periods": [2, 3, 5, 7, 11], "n_layers": 5,
                "kernel_sizes": [5, 3], "stride": 3, "filters": 2, "filters_scale": 2,
                "max_filters": 40, "norm": "weight_norm", **slope,
            },
            "msd": {
                "in_channels": 1, "out_channels": 1, "scale_norms": ["weight_norm"] * 3,
                "kernel_sizes": [5, 3], "filters": 4, "max_filters": 48,
                "downsample_scales": [4, 4, 4, 4], **slope,
            },
            "msstftd": {
                "in_channels": 1, "out_channels": 1, "filters": 4, "norm": "weight_norm",
                "n_ffts": [512, 256], "hop_lengths": [128, 64], "win_lengths": [512, 256], **slope,
            },
        }
    )  # fmt: skip


def write_discriminators(folder: Path) -> dict[str, torch.nn.Module]:
    """Write what a compression training's `checkpoint.th` has of them; return AudioCraft's own."""
    cfg = adversaries_config()
    losses = solver_builders.get_adversarial_losses(cfg).eval()
    folder.mkdir(parents=True, exist_ok=True)
    package = {"adv_losses": losses.state_dict(), "xp.cfg": cfg, "history": [{"train": {}}]}
    torch.save(package, folder / "checkpoint.th")
    return {name: loss.adversary for name, loss in losses.items()}
