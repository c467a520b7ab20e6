"""Fixtures for the client's tests: the real routes over fake models, on a local port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI

from api.ingress import create_app
from api.readiness import DeploymentState
from api.service import Service
from api.settings import KeySettings, UserConfig
from audiocraft_serve import AsyncClient, Client
from deployments.settings import (
    AudioGenSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    MusicGenSettings,
)
from engine.codec import Codec
from engine.discriminators import Discriminators
from engine.params import BatchLoad
from graph.settings import FolderStore, JobsSettings
from tests import checkpoints as write
from tests.api.conftest import FakeDiffusion, FakeLanguageModel, Media, Method, Real, serving
from tests.waiting import until_async

KEY = "the-key-of-the-tests"


@dataclass
class HandleWithLoad:
    """A deployment handle that also has the method `load`, and reports an idle replica."""

    handle: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    @property
    def load(self) -> Method:
        return Method(lambda: BatchLoad(0, 0, 0))


@dataclass
class Served:
    """A running application: its address, its service and its fake music models."""

    url: str
    service: Service
    app: FastAPI
    music: FakeLanguageModel
    hum: FakeLanguageModel

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a client finds the application."""
        return {"AUDIOCRAFT_SERVE_URL": self.url, "AUDIOCRAFT_SERVE_API_KEY": KEY}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Real]:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("parts")
    codec = Codec(write.write_codec(folder))
    write.write_discriminators(folder)
    return {"codec": Real(codec), "judge": Real(Discriminators.load(str(folder), device="cpu"))}


@pytest.fixture
async def served(parts: dict[str, Real], tmp_path: Path) -> AsyncIterator[Served]:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        MusicGenSettings(name="hum", kind="musicgen", checkpoint="x", codec="codec"),
        AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
        DiffusionSettings(name="diffusion", kind="mbd", checkpoint="x", codec="codec"),
        DiscriminatorsSettings(name="judge", kind="discriminators", checkpoint="x"),
    ]
    music, hum = FakeLanguageModel(), FakeLanguageModel(melody=True)
    models_by_name = {
        "music": music, "hum": hum, "sound": FakeLanguageModel(), "diffusion": FakeDiffusion(),
        **parts,
    }  # fmt: skip
    handles = {name: HandleWithLoad(part) for name, part in models_by_name.items()}

    async def states() -> dict[str, DeploymentState]:
        return dict.fromkeys(handles, DeploymentState("HEALTHY", 1))

    keys = (KeySettings(name="tests", sha256=[sha256(KEY.encode()).hexdigest()]),)
    limits = UserConfig(max_clips=6, max_text_chars=100, keys=keys)
    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path / "jobs")))
    service = serving(models, handles | {"media": Media()}, limits, states, settings=jobs)
    app = create_app(service, jobs_at_once=2)
    async with HttpServer(app) as url:
        yield Served(url, service, app, music, hum)


class HttpServer:
    """A real HTTP server on the test's event loop; entering it returns its address."""

    def __init__(self, app: Any) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        )
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._socket = socket.create_server(("127.0.0.1", 0))

    async def __aenter__(self) -> str:
        self._serving = asyncio.create_task(self._server._serve([self._socket]))
        await until_async(self._has_started)
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    async def _has_started(self) -> bool:
        if self._serving.done():
            self._serving.result()
        return self._server.started

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving
        self._socket.close()


class Threaded:
    """Makes a sync client's methods awaitable, on a thread, so that a test fits both clients."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: asyncio.to_thread(method, *args, **kwargs)


@pytest.fixture(params=["sync", "async"])
async def client(served: Served, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Run the test with the sync and with the async client; methods are awaited."""
    if request.param == "sync":
        with Client(served.url, KEY) as one:
            yield Threaded(one)
    else:
        async with AsyncClient(served.url, KEY) as other:
            yield other
