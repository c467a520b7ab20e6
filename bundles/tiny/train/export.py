"""Writes trained models into the bundle, in AudioCraft's published layouts and half precision.

`python -m bundles.tiny.train.export STAGE` writes one stage's models. `--bundle FOLDER` writes them
elsewhere, to measure what is not to be shipped yet.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import audiocraft
import torch
from audiocraft.models import builders
from omegaconf import OmegaConf
from torch import Tensor, nn

from bundles.tiny.recipe import SAMPLE_RATE, TEXT_ENCODER, codec_config, export
from bundles.tiny.train import decoder, diffusion, discriminators, language
from bundles.tiny.train.codec import FILTERS, trained_codec
from bundles.tiny.train.decoder import adversaries_config
from engine.checkpoints import CODEC_FILE, DIFFUSION_FILE, LANGUAGE_MODEL_FILE
from engine.discriminators import CALIBRATION_FILE, DISCRIMINATORS_FILE, NAMES, Discriminators

BUNDLE = Path(__file__).resolve().parents[1]


def to_half_precision(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state in half precision; integer tensors are not changed."""
    state = model.state_dict()
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


def export_codec(work: Path, bundle: Path) -> None:
    """Write the codec that the stage "codec" has trained."""
    model = builders.get_compression_model(codec_config(FILTERS))
    state = torch.load(work / "codec" / "state.pt", weights_only=True)
    model.load_state_dict(state["average"])
    export(model, codec_config(FILTERS), bundle / "codec" / CODEC_FILE)


def export_decoder(stage: str, work: Path, bundle: Path) -> None:
    """Write the codec with the decoder that "decoder" or "adversaries" has trained."""
    model = decoder.load_trained_decoder(stage, work, bundle)
    export(model, codec_config(FILTERS), bundle / "codec" / CODEC_FILE)


def export_language_model(kind: str, work: Path, bundle: Path) -> None:
    """Write "music", "melody" or "sound"; with "music", also the text encoder that it trained."""
    if kind == "music" and (work / "t5").exists():
        language.export_text_encoder(work, bundle)
    state = torch.load(work / kind / "state.pt", weights_only=True)["average"]
    cfg = language.build_config(kind, bundle / "t5")
    model = language.build_model(cfg)
    model.load_state_dict({key: value for key, value in state.items() if ".t5." not in key})
    cfg.conditioners.description.t5.name = TEXT_ENCODER
    export(model, cfg, bundle / kind / LANGUAGE_MODEL_FILE)


def export_diffusion(work: Path, bundle: Path) -> None:
    """Write multi-band diffusion in the layout of `mbd_musicgen_32khz.th`.

    The file has the published name, although it is for 16 kHz.
    """
    bands = diffusion.load_trained_bands(work, bundle)
    package: dict[object, object] = {"sample_rate": SAMPLE_RATE, "n_bands": len(bands)}
    for index, (model, processor) in enumerate(bands):
        package[index] = {
            "cfg": diffusion.build_config(trained_codec(bundle).encoder.dimension),
            "model_state": to_half_precision(model),
            "processor_state": processor.state_dict(),
        }
    (bundle / "diffusion").mkdir(parents=True, exist_ok=True)
    torch.save(package, bundle / "diffusion" / DIFFUSION_FILE)


def export_discriminators(work: Path, bundle: Path) -> None:
    """Write the discriminators in the layout of a codec training's `checkpoint.th`.

    It has only the keys `adv_losses` and `xp.cfg`, without optimizers. `calibration.json` beside it
    turns the mean logits into the probability that a clip is real.
    """
    adversaries = discriminators.load_adversaries(work)
    weights = {
        f"{name}.adversary.{key}": value
        for name in NAMES
        for key, value in to_half_precision(discriminators.get_adversary(adversaries, name)).items()
    }
    folder = bundle / "discriminators"
    folder.mkdir(parents=True, exist_ok=True)
    cfg = adversaries_config()
    cfg.sample_rate = SAMPLE_RATE
    package = {
        "adv_losses": weights,
        "xp.cfg": OmegaConf.to_yaml(cfg),
        "version": audiocraft.__version__,
    }
    torch.save(package, folder / DISCRIMINATORS_FILE)
    models = Discriminators.load(str(folder), device="cpu")
    pairs = [discriminators.load_held_out(work, kind, bundle) for kind in discriminators.KINDS]
    real, made = zip(*pairs, strict=True)
    calibration = discriminators.fit_calibration(models, list(real), list(made))
    (folder / CALIBRATION_FILE).write_text(json.dumps(calibration, indent=2) + "\n")


EXPORTS: dict[str, Callable[[Path, Path], None]] = {
    "codec": export_codec,
    "decoder": partial(export_decoder, "decoder"),
    "adversaries": partial(export_decoder, "adversaries"),
    "music": partial(export_language_model, "music"),
    "melody": partial(export_language_model, "melody"),
    "sound": partial(export_language_model, "sound"),
    "diffusion": export_diffusion,
    "discriminators": export_discriminators,
}


def main() -> None:
    """Write one stage's models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(EXPORTS))
    parser.add_argument("--work", type=Path, default=Path("build/tiny"))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    options = parser.parse_args()
    EXPORTS[options.stage](options.work, options.bundle)


if __name__ == "__main__":
    main()
