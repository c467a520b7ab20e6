"""Writes what was trained into the bundle, in AudioCraft's published layout and half precision."""

import shutil
from pathlib import Path

import torch
from audiocraft.models import builders
from audiocraft.modules.conditioners import T5Conditioner

from bundles.tiny.recipe import TEXT_ENCODER, codec_config, export, write_config_dtype
from bundles.tiny.train import language
from bundles.tiny.train.codec import FILTERS, trained_codec

BUNDLE = Path(__file__).resolve().parents[1]


def export_codec(work: Path, bundle: Path = BUNDLE) -> None:
    """Write the codec."""
    path = bundle / "codec" / "compression_state_dict.bin"
    export(trained_codec(work), codec_config(FILTERS), path)


def export_language_model(kind: str, work: Path, bundle: Path = BUNDLE) -> None:
    """Write "music", and with it the text encoder that it trained, or "sound"."""
    state = torch.load(work / kind / "state.pt", weights_only=True)["average"]
    inside = "condition_provider.conditioners.description.t5."
    if kind == "music":
        trained = builders.get_lm_model(language.config(kind, work / "t5", finetune=True))
        trained.load_state_dict(state)
        encoder = trained.condition_provider.conditioners["description"]
        assert isinstance(encoder, T5Conditioner)
        encoder.t5.half().save_pretrained(bundle / "t5")
        shutil.copy(work / "t5" / "spiece.model", bundle / "t5")
        write_config_dtype(bundle / "t5")
    cfg = language.config(kind, work / "t5", finetune=False)
    model = builders.get_lm_model(cfg)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith(inside)})
    cfg.conditioners.description.t5.name = TEXT_ENCODER
    export(model, cfg, bundle / kind / "state_dict.bin")
