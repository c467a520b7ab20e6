"""The HTTP application over handles that answer at once, without Ray."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from ray.serve.exceptions import DeploymentUnavailableError

from api.ingress import create_app
from api.readiness import DeploymentState
from api.service import Service, build_service
from api.settings import UserConfig
from deployments.accounts import Accounts
from deployments.in_flight import AnswersInFlight
from deployments.settings import (
    AnyModelSettings,
    AudioGenSettings,
    DiffusionSettings,
    EnCodecSettings,
    MusicGenSettings,
)
from engine import media
from engine.codec import Codec
from engine.params import (
    AudioPiece,
    CodecInfo,
    Codes,
    CodesPiece,
    Diffusing,
    DiffusionParams,
    Generated,
    GenerationParams,
    LanguageModelInfo,
    Waveform,
)
from graph.settings import FolderStore, IngressSettings, JobsSettings
from tests import checkpoints as write


@dataclass
class Method:
    """Stands for `handle.method`: awaits what the function returns, or raises."""

    function: Any

    async def remote(self, *args: Any, **_carried: Any) -> Any:
        await asyncio.sleep(0)
        answer = self.function(*args)
        return await answer if isawaitable(answer) else answer


class Answers:
    """Stands for Serve's response generator: can be cancelled, and tells whether it was."""

    def __init__(self, answers: AsyncIterator[Any]) -> None:
        self._answers = answers
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._answers

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeLanguageModel:
    """Codes that tell the request apart: the seed, repeated."""

    seen: list[GenerationParams] = field(default_factory=list)
    carried: list[dict[str, Any]] = field(default_factory=list)
    """What came along beside the arguments."""
    error: Exception | None = None
    fails_at: int = 0
    """Where the error comes: before the first chunk, or after it."""
    held: asyncio.Event | None = None
    """What it waits for before its first chunk."""
    melody: bool = False
    gate: asyncio.Event | None = None
    """What it waits for after its first chunk."""
    answers: list[Answers] = field(default_factory=list)

    @property
    def info(self) -> Method:
        return Method(lambda: LanguageModelInfo(4, 512, 16000, 50.0, 30.0, self.melody))

    def options(self, *, stream: bool) -> "FakeLanguageModel":
        assert stream
        return self

    @property
    def generate(self) -> "FakeLanguageModel":
        return self

    def remote(self, params: GenerationParams, *sizes: int, **carried: Any) -> "Answers":
        self.carried.append(carried)
        self.answers.append(Answers(self._generate(params, *sizes)))
        return self.answers[-1]

    async def _generate(
        self,
        params: GenerationParams,
        chunk_frames: int,
        first_chunk_frames: int,
        turn: float = 0.0,
    ) -> AsyncIterator[Generated]:
        if self.error and self.fails_at == 0:
            raise self.error
        self.seen.append(params)
        if self.held:
            await self.held.wait()
        left = params.frames - (params.prompt.frames if params.prompt else 0)
        size = first_chunk_frames
        while left:
            await asyncio.sleep(0)
            size = min(size, left)
            codes = np.full((4, size), (params.seed + params.variation) % 512)
            yield Generated(Codes.pack(codes), wait_seconds=0.1, run_seconds=0.2)
            left, size = left - size, chunk_frames
            if self.gate:
                await self.gate.wait()
            if self.error:
                raise self.error


@dataclass
class FakeCodec:
    """A square wave beyond full scale, 320 samples a frame."""

    cardinality: int = 512

    @property
    def info(self) -> Method:
        return Method(lambda: CodecInfo(4, self.cardinality, 16000, 1, 50.0))

    @property
    def decode(self) -> Method:
        return Method(self._decode)

    def _decode(self, piece: CodesPiece) -> AudioPiece:
        wave = np.tile(np.repeat([2.0, -2.0], 160), piece.codes.frames)
        return AudioPiece(Waveform.pack(wave[None], 16000))


@dataclass
class Real:
    """A part of the engine behind methods like a deployment's: one item in, one out."""

    part: Any

    def __getattr__(self, name: str) -> Method:
        return Method(lambda item: self._one(name, item))

    @property
    def info(self) -> Method:
        return Method(lambda: self.part.info)

    def _one(self, name: str, item: Any) -> Any:
        (made,) = getattr(self.part, name)([item])
        if isinstance(made, Exception):
            raise made
        return made


@dataclass
class FakeDiffusion:
    """Tells of two steps, then gives ones, as many as the codec would."""

    seen: list[DiffusionParams] = field(default_factory=list)
    codebooks: int = 4

    def options(self, *, stream: bool) -> "FakeDiffusion":
        assert stream
        return self

    @property
    def info(self) -> Method:
        return Method(lambda: CodecInfo(self.codebooks, 512, 16000, 1, 50.0))

    @property
    def generate(self) -> "FakeDiffusion":
        return self

    async def remote(self, params: DiffusionParams, **_carried: Any) -> AsyncIterator[Diffusing]:
        self.seen.append(params)
        yield Diffusing(1, 2)
        samples = params.samples or params.codes.frames * 320
        yield Diffusing(2, 2, Waveform.pack(np.ones((1, samples)), 16000))


class LocalLedger:
    """The ledger's accounts, in this process."""

    def __init__(self) -> None:
        self.accounts, self.in_flight = Accounts(), AnswersInFlight()
        self.reached = True

    def __getattr__(self, name: str) -> Method:
        return Method(lambda *args: self._call(name, *args))

    def _call(self, name: str, *args: Any) -> Any:
        if not self.reached:
            raise DeploymentUnavailableError("ledger")
        owner = self.accounts if hasattr(self.accounts, name) else self.in_flight
        return getattr(owner, name)(*args)


async def nothing_to_report() -> dict[str, DeploymentState]:
    return {}


def serving(
    models: Sequence[AnyModelSettings],
    handles: Mapping[str, Any],
    limits: UserConfig,
    states: Callable[[], Awaitable[Mapping[str, DeploymentState]]] = nothing_to_report,
    ledger: LocalLedger | None = None,
    settings: JobsSettings | None = None,
) -> Service:
    """What an ingress has, over handles that need no cluster; jobs write nothing before opened."""
    handles = {**handles, "ledger": ledger or LocalLedger()}
    ingress = IngressSettings(jobs=settings or JobsSettings())
    service = build_service(models, handles, ingress, states, limits)
    service.configured.set()
    return service


@dataclass
class Media:
    """The media deployment's work, in this process."""

    @property
    def decode(self) -> Method:
        return Method(media.decode)

    @property
    def probe(self) -> Method:
        return Method(media.probe)


@dataclass
class Server:
    """The application with its parts in reach."""

    service: Service
    music: FakeLanguageModel
    codec: FakeCodec
    states: dict[str, DeploymentState]
    http: httpx.AsyncClient

    async def generate(self, where: str = "music", **body: Any) -> httpx.Response:
        return await self.http.post(f"/generate/{where}", json={"text": "calm piano", **body})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="bundle:m", codec="codec"),
        AudioGenSettings(
            name="sound", kind="audiogen", checkpoint="facebook/s", codec="codec", license="x"
        ),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="/models/codec"),
    ]
    music, sound, codec = FakeLanguageModel(), FakeLanguageModel(), FakeCodec()
    states = {
        "music": DeploymentState("HEALTHY", 1),
        "sound": DeploymentState("UPSCALING", 1),
        "codec": DeploymentState("HEALTHY", 1),
    }

    async def report() -> dict[str, DeploymentState]:
        return states

    handles = {"music": music, "sound": sound, "codec": codec, "media": Media()}
    service = serving(models, handles, UserConfig(max_body_bytes=2000), report)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Server(service, music, codec, states, http)
    await service.ledger.close()


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    torch.manual_seed(1)
    return Codec(write.write_codec(tmp_path_factory.mktemp("codec")))


@dataclass
class Served:
    http: httpx.AsyncClient
    music: FakeLanguageModel
    hum: FakeLanguageModel
    diffusion: FakeDiffusion
    app: FastAPI
    service: Service


@pytest.fixture
async def served(codec: Codec, tmp_path: Path) -> AsyncIterator[Served]:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        MusicGenSettings(name="hum", kind="musicgen", checkpoint="x", codec="codec"),
        AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="other"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
        EnCodecSettings(name="other", kind="encodec", checkpoint="x"),
        DiffusionSettings(name="diffusion", kind="mbd", checkpoint="x", codec="codec"),
    ]
    music, hum, diffusion = FakeLanguageModel(), FakeLanguageModel(melody=True), FakeDiffusion()
    handles = {
        "music": music, "hum": hum, "sound": FakeLanguageModel(), "codec": Real(codec),
        "other": Real(codec), "diffusion": diffusion, "media": Media(),
    }  # fmt: skip

    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path / "jobs")))
    limits = UserConfig(max_clips=6, max_text_chars=100)
    service = serving(models, handles, limits, settings=jobs)
    app = create_app(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Served(http, music, hum, diffusion, app, service)
    await service.ledger.close()
