"""The order of calls behind one request, such as language model, then codec."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, get_args

import numpy as np

from deployments.settings import (
    AnyModelSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    ModelSettings,
    TokenModelSettings,
)
from engine.analysis import Analysis, combine
from engine.errors import InvalidAudio
from engine.params import (
    AudioPiece,
    CodecInfo,
    Codes,
    CodesPiece,
    DiffusionParams,
    DiscriminatorsInfo,
    Generated,
    GenerationParams,
    LanguageModelInfo,
    Waveform,
)
from graph.calls import call, stream, together
from graph.errors import ApiError
from graph.settings import MEDIA, Limits

PIECE_S, WINDOW_S = 30.0, 10.0
"""Seconds of audio that a codec gets at a time, and that the discriminators judge at once."""
UPLOAD = "audio_file"
"""The field in which a file comes, unless its route says another."""
Model = TypeVar("Model", bound=ModelSettings)


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
class ClipRequest:
    """One clip to make, and how its codes become audio."""

    params: GenerationParams
    diffusion: DiffusionSettings | None = None
    """By this, instead of the model's codec."""
    include_prompt: bool = True
    """Whether a continuation's audio begins with what it continues."""


@dataclass(frozen=True)
class Clip:
    """A finished request: audio, its codes, and where its time went, in seconds."""

    audio: Waveform
    codes: Codes
    seconds: Mapping[str, float]


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
        named = kind.model_fields.get("kind")
        what = get_args(named.annotation)[0] if named else "language"
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
        await self._all_voices()

    async def melody_models(self) -> list[str]:
        """Return the names of the models that follow melodies."""
        voices = await self._all_voices()
        return [voice.model.name for voice in voices if voice.language_model.melody]

    async def _all_voices(self) -> list[Voice]:
        models = [m for m in self.models.values() if isinstance(m, TokenModelSettings)]
        return await together(map(self.voice, models))

    def diffusion_of(self, model: TokenModelSettings) -> DiffusionSettings:
        """Return what decodes a model's codes by diffusion. Raises ApiError 422."""
        all_of_them = [m for m in self.models.values() if isinstance(m, DiffusionSettings)]
        fitting = [m for m in all_of_them if m.codec == model.codec]
        if fitting and not self.codec_of(model).stereo:
            return fitting[0]
        reason = "is for mono models" if fitting else f"is not configured for {model.name!r}"
        message = f"decoder: multi-band diffusion {reason}; use encodec"
        raise ApiError(422, "invalid_value", message, "decoder")

    async def generate(self, model: TokenModelSettings, request: ClipRequest) -> Clip:
        """Text to audio. Cancelling the caller's task stops the models within one step."""
        params = request.params
        generated: Generated = await call(self._handles[model.name].generate, params)
        begun = time.perf_counter()
        parts = [params.prompt.array()] if params.prompt else []
        codes = Codes.join([*parts, generated.codes.array()])
        if request.diffusion:
            audio = await self.diffuse(request.diffusion, DiffusionParams(codes, params.seed))
        else:
            audio = await self.decode(self.codec_of(model), codes)
        if params.prompt and not request.include_prompt:
            first = audio.samples * params.prompt.frames // codes.frames
            audio = Waveform.pack(audio.array()[:, first:], audio.sample_rate)
        return Clip(
            audio,
            codes,
            {
                "wait": generated.wait_seconds,
                "generate": generated.run_seconds,
                "decode": time.perf_counter() - begun,
            },
        )

    def codec_of(self, model: TokenModelSettings | DiffusionSettings) -> EnCodecSettings:
        """Return the codec whose codes a model makes or takes."""
        codec = self.models[model.codec]
        assert isinstance(codec, EnCodecSettings)
        return codec

    async def diffuse(self, model: DiffusionSettings, params: DiffusionParams) -> Waveform:
        """Codes to audio by diffusion. Raises InvalidRequest where they do not fit."""
        handle = self._handles[model.name].options(stream=True)
        async with aclosing(stream(handle.generate, params)) as answers:
            async for answer in answers:
                if answer.audio is not None:
                    audio: Waveform = answer.audio
        return audio

    async def codec(self, model: EnCodecSettings | DiffusionSettings) -> CodecInfo:
        """Return what codes a model has, and of what audio."""
        info: CodecInfo = await call(self._handles[model.name].info)
        return info

    async def read_for(
        self, model: EnCodecSettings, data: bytes, limits: Limits, field: str = UPLOAD
    ) -> Waveform:
        """An uploaded file to samples, as a codec takes them. Raises InvalidAudio."""
        info = await self.codec(model)
        return await self.read(data, limits, info.sample_rate, info.channels, field)

    async def encode(self, model: EnCodecSettings, audio: Waveform) -> Codes:
        """Audio to codes, piece by piece."""
        codec, info = self._handles[model.name], await self.codec(model)
        samples, size = audio.array(), int(PIECE_S * info.sample_rate)
        parts, state = [], b""
        for start, end in spans(audio.samples, size):
            piece = Waveform.pack(samples[:, start:end], info.sample_rate)
            ended = end == audio.samples
            made: CodesPiece = await call(codec.encode, AudioPiece(piece, state, ended))
            parts.append(made.codes.array())
            state = made.state
        return Codes.join(parts)

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
        audio = await self.read(data, limits, info.sample_rate, info.channels)
        samples, size = audio.array(), int(WINDOW_S * info.sample_rate)
        windows = [
            Waveform.pack(samples[:, start:end], info.sample_rate)
            for start, end in spans(audio.samples, size)
        ]
        scored = await together(call(discriminators.analyze, one) for one in windows)
        return combine(scored, info)

    async def read(
        self, data: bytes, limits: Limits, sample_rate: int, channels: int, field: str = UPLOAD
    ) -> Waveform:
        """An uploaded file to samples of a rate and so many channels.

        Raises InvalidAudio, which names the `field` that it came in.
        """
        decode = self._handles[MEDIA].decode
        try:
            audio: Waveform = await call(decode, data, limits.media(), sample_rate, channels)
        except InvalidAudio as error:
            raise InvalidAudio(error.message, field) from error
        return audio
