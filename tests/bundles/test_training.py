"""Tests that every training stage runs and resumes, and that its export can be loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from bundles.tiny import recipe
from bundles.tiny.train import codec, decoder, diffusion, discriminators, export, language
from engine.checkpoints import DIFFUSION_FILE, load_diffusion
from engine.codec import Codec
from engine.discriminators import NAMES, Discriminators
from engine.params import Codes, CodesPiece

pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("fluid"),
]
SECONDS = 8 / 3600


def read_log(work: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work / stage / "log.jsonl").read_text().splitlines()]


def test_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work, bundle = tmp_path / "work", tmp_path / "bundle"
    for module in (codec, decoder, diffusion, discriminators):
        monkeypatch.setattr(module, "MUSIC_CLIPS", 8)
        monkeypatch.setattr(module, "SOUND_CLIPS", 8)

    def build_quick_config(filters: int) -> DictConfig:
        cfg = recipe.codec_config(filters)
        cfg.rvq.kmeans_iters = 2  # the published number takes longer than these stages
        return cfg

    monkeypatch.setattr(codec, "codec_config", build_quick_config)
    monkeypatch.setattr(export, "codec_config", build_quick_config)
    monkeypatch.setattr(language, "CLIPS", {"music": 16, "melody": 16, "sound": 16})
    monkeypatch.setattr(language, "WARM_UP_STEPS", 4)  # these stages take some ten steps
    monkeypatch.setattr(discriminators, "GENERATED_CLIPS", {"music": 2, "sound": 2})
    monkeypatch.setattr(discriminators, "HELD_OUT_CLIPS", 2)
    monkeypatch.setattr("bundles.tiny.train.progress.LOG_EVERY_STEPS", 1)

    codec.train(work, 2 * SECONDS)
    first = read_log(work, "codec")
    codec.train(work, 5 * SECONDS)
    resumed = read_log(work, "codec")[len(first) :]
    assert resumed[0]["step"] == first[-1]["step"] + 1
    export.EXPORTS["codec"](work, bundle)
    trained = Codec.load(str(bundle / "codec"), device="cpu")
    codes = Codes.pack(np.zeros((4, 10), np.int16))
    (made,) = trained.decode([CodesPiece(codes)])
    assert np.isfinite(made.audio.array()).all()

    for stage in ("decoder", "adversaries"):
        decoder.train(stage, work, bundle, 2 * SECONDS)
        assert ("d_msstftd" in read_log(work, stage)[-1]) is (stage == "adversaries")
        before = codec.trained_codec(bundle).state_dict()
        export.EXPORTS[stage](work, bundle)
        changed = {
            key.split(".")[0]
            for key, value in codec.trained_codec(bundle).state_dict().items()
            if not torch.equal(value, before[key])
        }
        assert changed == {"decoder"}

    for kind in ("music", "melody", "sound"):
        language.train(kind, work, bundle, 2 * SECONDS)
        losses = [line["loss"] for line in read_log(work, kind) if "loss" in line]
        assert np.mean(losses[len(losses) // 2 :]) < losses[0] < 8
        export.EXPORTS[kind](work, bundle)
        state = torch.load(bundle / kind / "state_dict.bin", weights_only=True)["best_state"]
        assert not [key for key in state if ".t5." in key]
    assert (bundle / "t5" / "spiece.model").exists()

    again = tmp_path / "again"
    language.train("music", again, bundle, SECONDS, from_bundle=True)
    first, *_ = [line["loss"] for line in read_log(again, "music") if "loss" in line]
    assert first < read_log(work, "music")[0]["loss"], "it goes on from what is there"

    diffusion.train(work, bundle, SECONDS)
    assert read_log(work, "diffusion")
    export.export_diffusion(work, bundle)
    models, _, _ = load_diffusion(str(bundle / "diffusion"), DIFFUSION_FILE, device="cpu")
    assert len(models) == diffusion.BANDS

    discriminators.train(work, bundle, SECONDS)
    assert {"mpd", "msd", "msstftd"} <= read_log(work, "discriminators")[-1].keys()
    export.export_discriminators(work, bundle)
    loaded = Discriminators.load(str(bundle / "discriminators"), device="cpu")
    assert loaded.info.sample_rate == 16000
    assert loaded.info.weights.keys() == set(NAMES)
