"""Tests the download of checkpoints before they are needed."""

import json
import sys
from pathlib import Path

import pytest

from engine import fetch
from engine.errors import CheckpointError
from tests.conftest import Checkpoints


def build_models(checkpoints: Checkpoints, **changes: str) -> str:
    music = {"kind": "musicgen", "checkpoint": str(checkpoints.music)}
    music |= {"text_encoder": checkpoints.text_encoder} | changes
    return json.dumps([music, {"kind": "encodec", "checkpoint": str(checkpoints.codec)}])


def test_each_model_is_loaded_once(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetch, "HF_HOME", str(tmp_path / "cache"))
    loaded: list[str] = []
    for kind, load in fetch.LOADERS.items():

        def record_load(model: dict[str, str], kind: str = kind, load=load) -> None:
            loaded.append(kind)
            load(model)

        monkeypatch.setitem(fetch.LOADERS, kind, record_load)
    fetch.fetch_models(build_models(checkpoints))
    fetch.fetch_models(build_models(checkpoints))
    assert loaded == ["musicgen", "encodec"]


def test_what_is_missing_is_said_and_not_remembered(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetch, "HF_HOME", str(tmp_path))
    wanted = build_models(checkpoints, checkpoint=str(tmp_path / "nothing" / "here"))
    for _ in range(2):
        with pytest.raises(CheckpointError):
            fetch.fetch_models(wanted)
    monkeypatch.setattr(sys, "argv", ["fetch", wanted])
    with pytest.raises(SystemExit) as said:
        fetch.main()
    assert str(said.value).startswith("error: ")
    assert "\n" not in str(said.value)
