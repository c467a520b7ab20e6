"""Fixtures shared by all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Checkpoints:
    """Folders of freshly written small models."""

    text_encoder: str
    codec: Path
    music: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    import torch

    from tests import checkpoints as write

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    text_encoder = write.write_text_encoder(folder / "t5")
    write.write_codec(folder / "codec")
    write.write_language_model(folder / "music", text_encoder)
    return Checkpoints(text_encoder, folder / "codec", folder / "music")
