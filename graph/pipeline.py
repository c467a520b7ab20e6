"""The order of calls behind one request, such as language model, then codec."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from deployments.settings import (
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    TokenModelSettings,
)
from engine.analysis import Analysis, combine
from engine.errors import InvalidAudio
from engine.params import (
    AudioPiece,
    Codes,
    CodesPiece,
    Diffusing,
    DiffusionParams,
    DiscriminatorsInfo,
    Generated,
    GenerationParams,
    Waveform,
)
from graph.calls import call, last, stream, together
from graph.recovery import call_again, resumed, stream_again
from graph.registry import Registry
from graph.settings import MEDIA, Limits

PIECE_S, WINDOW_S = 30.0, 10.0
"""Seconds of audio that a codec gets at a time, and that the discriminators judge at once."""
FIRST_CHUNK_S, CHUNK_S = 0.3, 1.0
"""Seconds of a clip that a language model makes before it passes them on: at first, and later."""
UPLOAD = "audio_file"
"""The field in which a file comes, unless its route says another."""


@dataclass(frozen=True)
class ClipRequest:
    """One clip to make, and how its codes become audio."""

    params: GenerationParams
    diffusion: DiffusionSettings | None = None
    """By this, instead of the model's codec."""
    include_prompt: bool = True
    """Whether a continuation's audio begins with what it continues."""

    @property
    def skipped_frames(self) -> int:
        """Frames of the clip that its audio leaves out."""
        prompt = self.params.prompt
        return prompt.frames if prompt and not self.include_prompt else 0


@dataclass(frozen=True)
class Progress:
    """How far a clip is."""

    stage: str
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""
    done: int
    total: int


@dataclass(frozen=True)
class Part:
    """The next codes of a clip, and the samples that are known by then."""

    codes: Codes
    audio: Waveform
    state: bytes = b""
    """What the codec goes on with."""


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
    """Composes the deployments; holds no state of its own."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._handles = registry.handles

    async def generate(
        self, model: TokenModelSettings, request: ClipRequest
    ) -> AsyncGenerator[Progress | Clip, None]:
        """Text to audio: yield how far it is, now and then, and at last the clip.

        Who leaves stops the models within one step.
        """
        params = request.params
        parts = [params.prompt.array()] if params.prompt else []
        done = params.prompt.frames if params.prompt else 0
        async with aclosing(self._codes(model, params, CHUNK_S)) as chunks:
            async for generated in chunks:
                parts.append(generated.codes.array())
                done += generated.codes.frames
                yield Progress("generate", done, params.frames)
        begun, codes = time.perf_counter(), Codes.join(parts)
        if request.diffusion:
            wanted = DiffusionParams(codes, params.seed)
            async with aclosing(self.diffuse(request.diffusion, wanted)) as answers:
                async for answer in answers:
                    yield Progress("decode", answer.done, answer.total)
            assert answer.audio
            audio = answer.audio
        else:
            audio = await self.decode(self._registry.codec_of(model), codes)
        if request.skipped_frames:
            first = audio.samples * request.skipped_frames // codes.frames
            audio = Waveform.pack(audio.array()[:, first:], audio.sample_rate)
        seconds = {
            "wait": generated.wait_seconds,
            "generate": generated.run_seconds,
            "decode": time.perf_counter() - begun,
        }
        yield Clip(audio, codes, seconds)

    async def clip(self, model: TokenModelSettings, request: ClipRequest) -> Clip:
        """Text to audio. Cancelling the caller's task stops the models within one step."""
        clip = await last(self.generate(model, request))
        assert isinstance(clip, Clip)
        return clip

    async def stream(
        self, model: TokenModelSettings, request: ClipRequest
    ) -> AsyncGenerator[Part, None]:
        """Text to audio, by the model's codec: yield the clip's samples while they are made.

        Joined they are what `generate` gives, but for rounding. Who leaves stops the models.
        """
        codec, params = self._registry.codec_of(model), request.params
        info = await self._registry.codec(codec)
        skipped = int(request.skipped_frames * info.sample_rate / info.frame_rate)
        chunks = self._all_codes(model, params, params.prompt)
        async with aclosing(self._decoded(codec, chunks, b"", params.frames)) as parts:
            async for part in parts:
                fresh = part.audio.array()[:, skipped:]
                skipped -= part.audio.samples - fresh.shape[1]
                yield Part(part.codes, Waveform.pack(fresh, info.sample_rate))

    def passage(
        self, model: TokenModelSettings, params: GenerationParams, state: bytes
    ) -> AsyncGenerator[Part, None]:
        """Go on after `params.prompt`, whose audio the codec has made, with that part's `state`.

        Joined, passages and their `rest` are one decode of all their codes.
        """
        chunks = self._all_codes(model, params, None)
        return self._decoded(self._registry.codec_of(model), chunks, state, None)

    async def rest(self, model: TokenModelSettings, codebooks: int, state: bytes) -> Waveform:
        """Return the samples that the codec holds back while more codes may follow."""
        nothing = Codes.pack(np.zeros((codebooks, 0), np.int16))
        decode = self._handles[model.codec].decode
        made: AudioPiece = await call_again(decode, CodesPiece(nothing, state, ended=True))
        return made.audio

    async def _decoded(
        self,
        codec: EnCodecSettings,
        chunks: AsyncGenerator[Codes, None],
        state: bytes,
        frames: int | None,
    ) -> AsyncGenerator[Part, None]:
        """Yield codes with their samples; the clip ends after so many frames, or goes on."""
        done = 0
        async with aclosing(chunks):
            async for codes in chunks:
                done += codes.frames
                piece = CodesPiece(codes, state, done == frames)
                made: AudioPiece = await call_again(self._handles[codec.name].decode, piece)
                state = made.state
                yield Part(codes, made.audio, state)

    async def _all_codes(
        self, model: TokenModelSettings, params: GenerationParams, before: Codes | None
    ) -> AsyncGenerator[Codes, None]:
        """Yield a clip's codes: those before, piece by piece, then what the model makes.

        None come before the model has begun: what it refuses ends the stream before its start.
        """
        async with aclosing(self._codes(model, params, FIRST_CHUNK_S)) as chunks:
            async for generated in chunks:
                if before:
                    for start, end in spans(before.frames, int(PIECE_S * model.frame_rate)):
                        yield Codes.pack(before.array()[:, start:end])
                    before = None
                yield generated.codes

    def _codes(
        self, model: TokenModelSettings, params: GenerationParams, first_s: float
    ) -> AsyncGenerator[Generated, None]:
        """Yield what the model makes, in chunks."""
        sizes = [int(seconds * model.frame_rate) for seconds in (CHUNK_S, first_s)]
        handle = self._handles[model.name].options(stream=True)
        return resumed(lambda rest: stream(handle.generate, rest, *sizes), params)

    def diffuse(
        self, model: DiffusionSettings, params: DiffusionParams
    ) -> AsyncGenerator[Diffusing, None]:
        """Codes to audio by diffusion. Raises InvalidRequest where they do not fit."""
        handle = self._handles[model.name].options(stream=True)
        return stream_again(handle.generate, params)

    async def diffused(self, model: DiffusionSettings, params: DiffusionParams) -> Waveform:
        """Return only the audio of `diffuse`."""
        made = await last(self.diffuse(model, params))
        assert made.audio
        return made.audio

    async def encode(self, model: EnCodecSettings, audio: Waveform) -> Codes:
        """Audio to codes, piece by piece."""
        codec, info = self._handles[model.name], await self._registry.codec(model)
        samples, size = audio.array(), int(PIECE_S * info.sample_rate)
        parts, state = [], b""
        for start, end in spans(audio.samples, size):
            piece = Waveform.pack(samples[:, start:end], info.sample_rate)
            ended = end == audio.samples
            made: CodesPiece = await call_again(codec.encode, AudioPiece(piece, state, ended))
            parts.append(made.codes.array())
            state = made.state
        return Codes.join(parts)

    async def decode(self, model: EnCodecSettings, codes: Codes) -> Waveform:
        """Codes to audio, piece by piece. Raises InvalidRequest where they do not fit."""
        codec, info = self._handles[model.name], await self._registry.codec(model)
        frames, size = codes.array(), int(PIECE_S * info.frame_rate)
        parts, state = [], b""
        for start, end in spans(codes.frames, size):
            piece = Codes.pack(frames[:, start:end])
            made: AudioPiece = await call_again(
                codec.decode, CodesPiece(piece, state, end == codes.frames)
            )
            parts.append(made.audio.array())
            state = made.state
        return Waveform.pack(np.concatenate(parts, axis=1), info.sample_rate)

    async def read_to_analyze(
        self, model: DiscriminatorsSettings, data: bytes, limits: Limits
    ) -> Waveform:
        """An uploaded file to samples, as discriminators take them. Raises InvalidAudio."""
        info: DiscriminatorsInfo = await call_again(self._handles[model.name].info)
        return await self.read(data, limits, info.sample_rate, info.channels)

    async def analyze(self, model: DiscriminatorsSettings, audio: Waveform) -> Analysis:
        """Say what the discriminators say of audio, window by window."""
        discriminators = self._handles[model.name]
        info: DiscriminatorsInfo = await call_again(discriminators.info)
        samples, size = audio.array(), int(WINDOW_S * info.sample_rate)
        windows = [
            Waveform.pack(samples[:, start:end], info.sample_rate)
            for start, end in spans(audio.samples, size)
        ]
        scored = await together(call_again(discriminators.analyze, one) for one in windows)
        return combine(scored, info)

    async def read_for(
        self, model: EnCodecSettings, data: bytes, limits: Limits, field: str = UPLOAD
    ) -> Waveform:
        """An uploaded file to samples, as a codec takes them. Raises InvalidAudio."""
        info = await self._registry.codec(model)
        return await self.read(data, limits, info.sample_rate, info.channels, field)

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
