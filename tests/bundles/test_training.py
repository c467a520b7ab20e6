"""Every training stage runs for some seconds, resumes, and its result loads as published."""

import ctypes.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.tiny.data import music
from bundles.tiny.train import codec, diffusion, export, language
from engine.codec import Codec
from engine.params import Codes

pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        ctypes.util.find_library("fluidsynth") is None or not Path(music.SOUNDFONT).exists(),
        reason="Debian's libfluidsynth3 and fluid-soundfont-gm are not installed",
    ),
]
SECONDS = 8 / 3600


def lines(work: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work / stage / "log.jsonl").read_text().splitlines()]


def test_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work, bundle = tmp_path / "work", tmp_path / "bundle"
    for module in (codec, diffusion):
        monkeypatch.setattr(module, "MUSIC_CLIPS", 8)
        monkeypatch.setattr(module, "SOUND_CLIPS", 8)
    monkeypatch.setattr(language, "CLIPS", {"music": 16, "sound": 16})
    monkeypatch.setattr("bundles.tiny.train.progress.LOG_EVERY_STEPS", 1)

    codec.train(work, 2 * SECONDS)
    first = lines(work, "codec")
    assert "d_msstftd" in first[-1], "the adversaries took part"
    codec.train(work, 5 * SECONDS)
    resumed = lines(work, "codec")[len(first) :]
    assert resumed[0]["step"] == first[-1]["step"] + 1
    export.export_codec(work, bundle)
    loaded = Codec.load(str(bundle / "codec"), device="cpu")
    codes = Codes.pack(np.zeros((4, 10), np.int16))
    (audio,) = loaded.decode([codes])
    assert np.isfinite(audio.array()).all()

    for kind in ("music", "sound"):
        language.train(kind, work, SECONDS)
        losses = [line["loss"] for line in lines(work, kind)]
        assert losses[-1] < losses[0] < 7
        export.export_language_model(kind, work, bundle)
        state = torch.load(bundle / kind / "state_dict.bin", weights_only=True)["best_state"]
        assert not [key for key in state if ".t5." in key]
    assert (bundle / "t5" / "spiece.model").exists()

    diffusion.train(work, SECONDS)
    assert lines(work, "diffusion")
