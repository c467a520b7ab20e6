"""An application with every kind of model, whose jobs are worked on."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors import numpy as safetensors

from api.ingress import create_app
from api.service import Service
from api.settings import UserConfig
from deployments.settings import (
    AudioGenSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    MusicGenSettings,
)
from engine import media
from engine.codec import Codec
from engine.discriminators import Discriminators
from graph.settings import FolderStore, JobsSettings
from tests import checkpoints as write
from tests.api.conftest import FakeDiffusion, FakeLanguageModel, LocalLedger, Method, Real, serving
from tests.api.test_uploads import wav


@dataclass
class CountingMedia:
    """The media deployment's work in this process, with what it was asked for."""

    calls: list[str] = field(default_factory=list)

    @property
    def decode(self) -> Method:
        def decode(data: bytes, limits: Any, *to: int) -> Any:
            self.calls.append("decode")
            return media.decode(data, limits, *to)

        return Method(decode)

    @property
    def probe(self) -> Method:
        def probe(data: bytes, limits: Any) -> Any:
            self.calls.append("probe")
            return media.probe(data, limits)

        return Method(probe)


@dataclass
class Everything:
    """The application, and the parts that tests look at."""

    http: httpx.AsyncClient
    service: Service
    music: FakeLanguageModel
    sound: FakeLanguageModel
    media: CountingMedia
    ledger: LocalLedger


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Discriminators:
    folder = tmp_path_factory.mktemp("judge")
    write.write_discriminators(folder)
    return Discriminators.load(str(folder), device="cpu")


@pytest.fixture
async def everything(
    codec: Codec, judge: Discriminators, tmp_path: Path
) -> AsyncIterator[Everything]:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
        DiffusionSettings(name="diffusion", kind="mbd", checkpoint="x", codec="codec"),
        DiscriminatorsSettings(name="judge", kind="discriminators", checkpoint="x"),
    ]
    music, sound = FakeLanguageModel(melody=True), FakeLanguageModel()
    uploads, ledger = CountingMedia(), LocalLedger()
    handles = {
        "music": music, "sound": sound, "codec": Real(codec), "diffusion": FakeDiffusion(),
        "judge": Real(judge), "media": uploads,
    }  # fmt: skip
    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path / "jobs")))
    service = serving(models, handles, UserConfig(), ledger=ledger, settings=jobs)
    app = create_app(service, jobs_at_once=2)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Everything(http, service, music, sound, uploads, ledger)


AUDIO = wav(1.0)


def codes_file() -> bytes:
    """Return a safetensors file with codes of a part of a second."""
    return safetensors.save({"codes": np.ones((4, 20), np.int16)})
