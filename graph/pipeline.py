"""The order of calls behind one request: language model, then codec."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.settings import AnyModelSettings, TokenModelSettings
from engine.errors import EngineError
from engine.params import (
    AudioPiece,
    CodecInfo,
    CodesPiece,
    Generated,
    GenerationParams,
    LanguageModelInfo,
    Waveform,
)
from graph.errors import ApiError


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


class Pipeline:
    """Composes the deployments; holds no state but what they said about themselves."""

    def __init__(self, models: Sequence[AnyModelSettings], handles: Mapping[str, Any]) -> None:
        self.models = {model.name: model for model in models}
        self._handles = handles
        self._voices: dict[str, Voice] = {}

    def pick(self, kind: str, name: str | None) -> TokenModelSettings:
        """Return the model `name`, or the first of its kind. Raises ApiError 404."""
        of_kind = {
            model.name: model
            for model in self.models.values()
            if isinstance(model, TokenModelSettings) and model.kind == kind
        }
        if name is None and of_kind:
            return next(iter(of_kind.values()))
        if name in of_kind:
            return of_kind[name]
        valid = ", ".join(of_kind) or "none is configured"
        message = (
            f"no {kind} model {name!r}; valid: {valid}" if name else f"no {kind} model: {valid}"
        )
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
