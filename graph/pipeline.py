"""The order of calls behind one request, such as language model, then codec."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.settings import (
    AnyModelSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    ModelSettings,
    TokenModelSettings,
)
from engine.analysis import Analysis, combine
from engine.errors import EngineError
from engine.params import (
    AudioPiece,
    CodecInfo,
    Codes,
    CodesPiece,
    DiscriminatorsInfo,
    Generated,
    GenerationParams,
    LanguageModelInfo,
    Waveform,
)
from graph.errors import ApiError
from graph.settings import MEDIA, Limits

PIECE_S, WINDOW_S = 30.0, 10.0
"""Seconds of audio that a codec gets at a time, and that the discriminators judge at once."""
Model = TypeVar("Model", bound=ModelSettings)


class Method(Protocol):
    """A method of a deployment, such as `handle.decode`."""

    def remote(self, *args: Any) -> Any:
        """Call it; the answer is awaitable."""


async def call(method: Method, *args: Any) -> Any:
    """Call a deployment; its own typed errors come back as they were raised there.

    Raises ApiError 503 where no replica can answer.
    """
    try:
        return await method.remote(*args)
    except RayTaskError as error:
        if isinstance(error.cause, EngineError):
            raise error.cause from error
        raise
    except (BackPressureError, DeploymentUnavailableError, RayActorError) as error:
        message = "a model behind this request cannot be reached now; try again"
        raise ApiError(503, "model_unavailable", message) from error


@dataclass(frozen=True)
class Voice:
    """A language model together with the codec that decodes its tokens."""

    model: TokenModelSettings
    language_model: LanguageModelInfo
    codec: CodecInfo

    def mismatch(self) -> str | None:
        """Say why the two do not belong together, or None where they do."""
        wanted, given = self.language_model, self.codec
        for what, fits in (
            ("codebooks", wanted.codebooks <= given.codebooks),
            ("cardinality", wanted.cardinality == given.cardinality),
            ("sample_rate", wanted.sample_rate == given.sample_rate),
            ("frame_rate", wanted.frame_rate == given.frame_rate),
        ):
            if not fits:
                return (
                    f"model {self.model.name!r} does not fit codec {self.model.codec!r}: "
                    f"{what} {getattr(wanted, what)} against {getattr(given, what)}"
                )
        return None


@dataclass(frozen=True)
class Clip:
    """A finished request: audio, and where its time went, in seconds."""

    audio: Waveform
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Encoded:
    """A file's codes, and how many samples of the codec's rate it had."""

    codes: Codes
    samples: int


def spans(total: int, size: int) -> list[tuple[int, int]]:
    """Cut a length into stretches; a rest of less than half of one joins the last."""
    starts = range(0, max(total - size // 2, 1), size)
    return list(pairwise([*starts, total]))


class Pipeline:
    """Composes the deployments; holds no state but what they said about themselves."""

    def __init__(self, models: Sequence[AnyModelSettings], handles: Mapping[str, Any]) -> None:
        self.models = {model.name: model for model in models}
        self._handles = handles
        self._voices: dict[str, Voice] = {}

    def pick(self, kind: type[Model], name: str | None) -> Model:
        """Return the model `name`, or the first of its kind. Raises ApiError 404."""
        of_kind = {m.name: m for m in self.models.values() if isinstance(m, kind)}
        chosen = next(iter(of_kind), None) if name is None else name
        if chosen in of_kind:
            return of_kind[chosen]
        (what,) = get_args(kind.model_fields["kind"].annotation)
        valid = ", ".join(of_kind) or "none is configured"
        message = f"no {what} model {name!r}; valid: {valid}" if name else f"no {what}: {valid}"
        raise ApiError(404, "model_not_found", message, "model")

    async def voice(self, model: TokenModelSettings) -> Voice:
        """Return what the model and its codec can do. Raises ApiError 500 where they don't fit."""
        if model.name not in self._voices:
            language_model, codec = await asyncio.gather(
                call(self._handles[model.name].info), call(self._handles[model.codec].info)
            )
            voice = Voice(model, language_model, codec)
            if problem := voice.mismatch():
                raise ApiError(500, "configuration", problem)
            self._voices[model.name] = voice
        return self._voices[model.name]

    async def check(self) -> None:
        """Raise ApiError where a model and its codec do not fit together."""
        token_models = [m for m in self.models.values() if isinstance(m, TokenModelSettings)]
        await asyncio.gather(*map(self.voice, token_models))

    async def generate(self, model: TokenModelSettings, params: GenerationParams) -> Clip:
        """Text to audio. Cancelling the caller's task stops the model within one step."""
        generated: Generated = await call(self._handles[model.name].generate, params)
        begun = time.perf_counter()
        piece = CodesPiece(generated.codes)
        decoded: AudioPiece = await call(self._handles[model.codec].decode, piece)
        return Clip(
            decoded.audio,
            {
                "wait": generated.wait_seconds,
                "generate": generated.run_seconds,
                "decode": time.perf_counter() - begun,
            },
        )

    async def codec(self, model: EnCodecSettings) -> CodecInfo:
        """Return what a codec takes and gives."""
        info: CodecInfo = await call(self._handles[model.name].info)
        return info

    async def encode(self, model: EnCodecSettings, data: bytes, limits: Limits) -> Encoded:
        """An uploaded file to codes, piece by piece. Raises InvalidAudio."""
        codec, info = self._handles[model.name], await self.codec(model)
        audio = await self._read(data, limits, info.sample_rate, info.channels)
        samples, size = audio.array(), int(PIECE_S * info.sample_rate)
        parts, state = [], b""
        for start, end in spans(audio.samples, size):
            piece = Waveform.pack(samples[:, start:end], info.sample_rate)
            ended = end == audio.samples
            made: CodesPiece = await call(codec.encode, AudioPiece(piece, state, ended))
            parts.append(made.codes.array())
            state = made.state
        return Encoded(Codes.join(parts), audio.samples)

    async def decode(self, model: EnCodecSettings, codes: Codes) -> Waveform:
        """Codes to audio, piece by piece. Raises InvalidRequest where they do not fit."""
        codec, info = self._handles[model.name], await self.codec(model)
        frames, size = codes.array(), int(PIECE_S * info.frame_rate)
        parts, state = [], b""
        for start, end in spans(codes.frames, size):
            piece = Codes.pack(frames[:, start:end])
            made: AudioPiece = await call(
                codec.decode, CodesPiece(piece, state, end == codes.frames)
            )
            parts.append(made.audio.array())
            state = made.state
        return Waveform.pack(np.concatenate(parts, axis=1), info.sample_rate)

    async def analyze(self, model: DiscriminatorsSettings, data: bytes, limits: Limits) -> Analysis:
        """An uploaded file to what the discriminators say of it, window by window."""
        discriminators = self._handles[model.name]
        info: DiscriminatorsInfo = await call(discriminators.info)
        audio = await self._read(data, limits, info.sample_rate, info.channels)
        samples, size = audio.array(), int(WINDOW_S * info.sample_rate)
        windows = [
            Waveform.pack(samples[:, start:end], info.sample_rate)
            for start, end in spans(audio.samples, size)
        ]
        scored = await asyncio.gather(*(call(discriminators.analyze, one) for one in windows))
        return combine(scored, info)

    async def _read(self, data: bytes, limits: Limits, sample_rate: int, channels: int) -> Waveform:
        audio: Waveform = await call(
            self._handles[MEDIA].decode, data, limits.media(), sample_rate, channels
        )
        return audio
