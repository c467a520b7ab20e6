"""The HTTP application over handles that answer at once, without Ray."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from deployments.settings import AudioGenSettings, EnCodecSettings, MusicGenSettings
from engine import media
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
from graph.ingress import create_app
from graph.pipeline import Pipeline
from graph.service import Service
from graph.settings import Limits


@dataclass
class Method:
    """Stands for `handle.method`: awaits what the function returns, or raises."""

    function: Any

    async def remote(self, *args: Any) -> Any:
        await asyncio.sleep(0)
        return self.function(*args)


@dataclass
class FakeLanguageModel:
    """Codes that tell the request apart: the seed, repeated."""

    seen: list[GenerationParams] = field(default_factory=list)
    error: Exception | None = None
    melody: bool = False

    @property
    def info(self) -> Method:
        return Method(lambda: LanguageModelInfo(4, 512, 16000, 50.0, 30.0, self.melody))

    @property
    def generate(self) -> Method:
        return Method(self._generate)

    def _generate(self, params: GenerationParams) -> Generated:
        if self.error:
            raise self.error
        self.seen.append(params)
        prompt = params.prompt.frames if params.prompt else 0
        codes = np.full((4, params.frames - prompt), (params.seed + params.variation) % 512)
        return Generated(Codes.pack(codes), wait_seconds=0.1, run_seconds=0.2)


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

    async def remote(self, params: DiffusionParams) -> AsyncIterator[Diffusing]:
        self.seen.append(params)
        yield Diffusing(1, 2)
        samples = params.samples or params.codes.frames * 320
        yield Diffusing(2, 2, Waveform.pack(np.ones((1, samples)), 16000))


@dataclass
class Media:
    """The media deployment's work, in this process."""

    @property
    def decode(self) -> Method:
        return Method(lambda data, limits, *to: media.convert(media.decode(data, limits), *to))


@dataclass
class Server:
    """The application with its parts in reach."""

    service: Service
    music: FakeLanguageModel
    codec: FakeCodec
    statuses: dict[str, str]
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
    statuses = {"music": "HEALTHY", "sound": "UPSCALING", "codec": "HEALTHY"}

    async def report() -> dict[str, str]:
        return statuses

    handles = {"music": music, "sound": sound, "codec": codec, "media": Media()}
    service = Service(Pipeline(models, handles), report, Limits(max_body_bytes=2000), started_at=1)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield Server(service, music, codec, statuses, http)
