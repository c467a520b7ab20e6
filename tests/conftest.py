"""Fixtures shared by all tests."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest

# Ray reads these once, when it is imported; the replicas inherit them.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",  # small models: more threads only wait for each other
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
}


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
