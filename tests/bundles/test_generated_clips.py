"""The discriminators learn from clips of the bundle as it is, and generate only what is new."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audiocraft.models import builders
from numpy.typing import NDArray

from bundles.tiny import generate, recipe
from bundles.tiny.data.store import Clips
from bundles.tiny.train.discriminators import generate_clips
from engine.checkpoints import CODEC_FILE

FRAMES = 10


class FakeModel:
    """A language model without work, whose loop can be closed."""

    loop: "FakeModel"

    def __init__(self) -> None:
        self.loop = self

    def close(self) -> None:
        """Do nothing."""


def write_codec(bundle: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = builders.get_compression_model(recipe.codec_config(4))
    recipe.fill_codebooks(model)
    recipe.export(model, recipe.codec_config(4), bundle / "codec" / CODEC_FILE)


def test_codes_are_kept_for_one_language_model_and_audio_for_no_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle = tmp_path / "bundle"
    for folder in (tmp_path / "data", bundle / "sound", bundle / "t5"):
        folder.mkdir(parents=True)
    (bundle / "sound" / "state_dict.bin").write_bytes(b"first")
    write_codec(bundle, 1)
    generated: list[int] = []

    def generate_codes(_: object, wanted: list[object]) -> list[NDArray[np.int16]]:
        generated.append(len(wanted))
        return [np.full((4, FRAMES), len(generated), np.int16)] * len(wanted)

    monkeypatch.setattr(generate, "load_model", lambda *_: FakeModel())
    monkeypatch.setattr(generate, "generate_codes", generate_codes)
    rendered = Clips([3, 5], np.zeros((1, 1), np.int16))

    def make() -> NDArray[np.int16]:
        return np.array(generate_clips(tmp_path, "sound", rendered, "generated", bundle).audio)

    first, again = make(), make()
    assert generated == [2]
    assert np.array_equal(first, again)
    write_codec(bundle, 2)
    assert not np.array_equal(make(), first), "a new decoder is heard"
    assert generated == [2], "and needs no new codes"
    (bundle / "sound" / "state_dict.bin").write_bytes(b"second")
    make()
    assert generated == [2, 2], "another language model has other codes"
