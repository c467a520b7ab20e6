"""Tests that a model of every published kind starts, is probed, and passes its health checks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from deployments.audiogen import AudioGen
from deployments.discriminators import Discriminators
from deployments.encodec import EnCodec
from deployments.mbd import MultiBandDiffusion
from deployments.musicgen import MusicGen
from deployments.settings import (
    AudioGenSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    EngineArgs,
    MusicGenSettings,
)
from engine.checkpoints import DIFFUSION_FILE
from tests import checkpoints as write
from tests.conftest import Checkpoints
from tests.families import write_family

SMALL = EngineArgs(max_slots=2, cache_gb=0.1, max_text_tokens=16)


def start_language_model(family: str) -> Callable[[Path, Checkpoints], Any]:
    def start(folder: Path, checkpoints: Checkpoints) -> Any:
        write_family(family, checkpoints.text_encoder, folder)
        sources: dict[str, Any] = {"name": "m", "checkpoint": str(folder), "codec": "codec"}
        if family.startswith("audiogen"):
            return AudioGen.func_or_class(
                AudioGenSettings(kind="audiogen", engine=SMALL, **sources)
            )
        music = MusicGenSettings(kind="musicgen", engine=SMALL, stem_separation=False, **sources)
        return MusicGen.func_or_class(music)

    return start


def start_codec(stereo: bool) -> Callable[[Path, Checkpoints], Any]:
    def start(folder: Path, checkpoints: Checkpoints) -> Any:
        source = str(checkpoints.codec)
        settings = EnCodecSettings(kind="encodec", name="c", checkpoint=source, stereo=stereo)
        return EnCodec.func_or_class(settings)

    return start


def start_transformers_codec(folder: Path, checkpoints: Checkpoints) -> Any:
    config = EncodecConfig(
        sampling_rate=16000, upsampling_ratios=[8, 5, 4, 2], num_filters=4, hidden_size=16,
        codebook_size=64, codebook_dim=16, target_bandwidths=[0.3, 0.6, 1.2],
    )  # fmt: skip
    EncodecModel(config).save_pretrained(folder)
    return EnCodec.func_or_class(EnCodecSettings(kind="encodec", name="c", checkpoint=str(folder)))


def start_diffusion(folder: Path, checkpoints: Checkpoints) -> Any:
    write.write_diffusion(folder / DIFFUSION_FILE)
    settings = DiffusionSettings(kind="mbd", name="d", checkpoint=str(folder), codec="codec")
    return MultiBandDiffusion.func_or_class(settings, str(checkpoints.codec))


def start_discriminators(folder: Path, checkpoints: Checkpoints) -> Any:
    write.write_discriminators(folder)
    settings = DiscriminatorsSettings(kind="discriminators", name="j", checkpoint=str(folder))
    return Discriminators.func_or_class(settings)


KINDS: dict[str, Callable[[Path, Checkpoints], Any]] = {
    "MusicGen": start_language_model("musicgen-small"),
    "MusicGen, melody": start_language_model("musicgen-melody"),
    "MusicGen, stereo": start_language_model("musicgen-stereo-small"),
    "AudioGen": start_language_model("audiogen-medium"),
    "EnCodec": start_codec(stereo=False),
    "EnCodec, stereo by a mono codec": start_codec(stereo=True),
    "EnCodec of transformers": start_transformers_codec,
    "multi-band diffusion": start_diffusion,
    "discriminators": start_discriminators,
}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_starts_and_stays_healthy(checkpoints: Checkpoints, tmp_path: Path, kind: str):
    """An idle model whose count of finished work stands still is probed at each check."""
    torch.manual_seed(0)
    replica = KINDS[kind](tmp_path, checkpoints)
    for _ in range(3):
        await replica.check_health()
    if hasattr(replica, "_model"):
        assert replica._model.loop.engine.statistics.steps
        replica._model.loop.close()
