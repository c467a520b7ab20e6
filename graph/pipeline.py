"""Calls the deployments of a request in their order, such as language model, then codec."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

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
    Generated,
    GenerationParams,
    MediaLimits,
    UploadInfo,
    Waveform,
)
from graph.calls import (
    call,
    call_again,
    gather_all,
    resume_codes,
    stream,
    stream_again,
)
from graph.registry import ModelWithCodec, Registry
from graph.settings import MEDIA
from graph.tasks.task import ClipAudio, ClipRequest, DecodedPart, StageProgress, Upload

PIECE_S, WINDOW_S = 30.0, 10.0
"""Seconds of audio in one call of a codec, and in one call of the discriminators."""
FIRST_CHUNK_S, CHUNK_S = 0.3, 1.0
"""Seconds of a clip in the first chunk that a language model returns, and in later chunks."""


def split_length(total: int, size: int) -> list[tuple[int, int]]:
    """Cut a length into ranges of `size`; a rest below half of it is added to the last range."""
    starts = range(0, max(total - size // 2, 1), size)
    return list(pairwise([*starts, total]))


class Pipeline:
    """Calls the deployments that a request needs; it has no state."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._handles = registry.handles

    async def generate_clip(
        self, model: TokenModelSettings, request: ClipRequest
    ) -> AsyncGenerator[StageProgress | ClipAudio, None]:
        """Generate a clip from text: yield its progress, and at last the clip.

        Closing the generator stops the models within one step.
        """
        params = request.params
        parts = [params.prompt.array()] if params.prompt else []
        done = params.prompt.frames if params.prompt else 0
        async with aclosing(self._stream_codes(model, params, CHUNK_S, request.turn)) as chunks:
            async for generated in chunks:
                parts.append(generated.codes.array())
                done += generated.codes.frames
                yield StageProgress("generate", done, params.frames)
        begun, codes = time.perf_counter(), Codes.join(parts)
        if request.diffusion:
            wanted = DiffusionParams(codes, params.seed)
            async with aclosing(self.stream_diffusion(request.diffusion, wanted)) as answers:
                async for answer in answers:
                    yield StageProgress("decode", answer.done, answer.total)
            assert answer.audio
            audio = answer.audio
        else:
            audio = await self.decode_codes(self._registry.get_codec(model), codes)
        if request.skipped_frames:
            first = audio.samples * request.skipped_frames // codes.frames
            audio = Waveform.pack(audio.array()[:, first:], audio.sample_rate)
        seconds = {
            "wait": generated.wait_seconds,
            "generate": generated.run_seconds,
            "decode": time.perf_counter() - begun,
        }
        yield ClipAudio(audio, codes, seconds)

    async def stream_clip(
        self, model: TokenModelSettings, request: ClipRequest
    ) -> AsyncGenerator[DecodedPart, None]:
        """Generate a clip from text: yield its samples as the model's codec decodes them.

        Joined they equal those of `generate_clip`, except for rounding. Closing stops the models.
        """
        codec, params = self._registry.get_codec(model), request.params
        info = await self._registry.describe_codec(codec)
        skipped = int(request.skipped_frames * info.sample_rate / info.frame_rate)
        chunks = self._stream_all_codes(model, params, params.prompt, request.turn)
        async with aclosing(self._decode_parts(codec, chunks, b"", params.frames)) as parts:
            async for part in parts:
                fresh = part.audio.array()[:, skipped:]
                skipped -= part.audio.samples - fresh.shape[1]
                yield DecodedPart(part.codes, Waveform.pack(fresh, info.sample_rate))

    def stream_passage(
        self, model: TokenModelSettings, request: ClipRequest, state: bytes
    ) -> AsyncGenerator[DecodedPart, None]:
        """Continue a prompt; `state` is the codec's state after it has decoded the prompt.

        Passages and `decode_rest`, joined, equal one decode of all their codes.
        """
        chunks = self._stream_all_codes(model, request.params, None, request.turn)
        return self._decode_parts(self._registry.get_codec(model), chunks, state, None)

    async def decode_rest(
        self, model: TokenModelSettings, codebooks: int, state: bytes
    ) -> Waveform:
        """Return the samples that the codec has kept back because more codes might follow."""
        nothing = Codes.pack(np.zeros((codebooks, 0), np.int16))
        decode = self._handles[model.codec].decode
        made: AudioPiece = await call_again(decode, CodesPiece(nothing, state, ended=True))
        return made.audio

    async def _decode_parts(
        self,
        codec: EnCodecSettings,
        chunks: AsyncGenerator[Codes, None],
        state: bytes,
        frames: int | None,
    ) -> AsyncGenerator[DecodedPart, None]:
        """Yield codes with their samples; the clip ends after `frames`, or never if None."""
        done = 0
        async with aclosing(chunks):
            async for codes in chunks:
                done += codes.frames
                piece = CodesPiece(codes, state, done == frames)
                made: AudioPiece = await call_again(self._handles[codec.name].decode, piece)
                state = made.state
                yield DecodedPart(codes, made.audio, state)

    async def _stream_all_codes(
        self,
        model: TokenModelSettings,
        params: GenerationParams,
        before: Codes | None,
        turn: float,
    ) -> AsyncGenerator[Codes, None]:
        """Yield a clip's codes: those of `before` in pieces, then those that the model generates.

        Nothing is yielded before the model has begun, so a refusal comes before any codes.
        """
        async with aclosing(self._stream_codes(model, params, FIRST_CHUNK_S, turn)) as chunks:
            async for generated in chunks:
                if before:
                    for start, end in split_length(before.frames, int(PIECE_S * model.frame_rate)):
                        yield Codes.pack(before.array()[:, start:end])
                    before = None
                yield generated.codes

    def _stream_codes(
        self, model: TokenModelSettings, params: GenerationParams, first_s: float, turn: float
    ) -> AsyncGenerator[Generated, None]:
        """Yield the codes that the model generates, first `first_s` seconds, then `CHUNK_S`."""
        sizes = [int(seconds * model.frame_rate) for seconds in (CHUNK_S, first_s)]
        handle = self._handles[model.name].options(stream=True)
        return resume_codes(lambda rest: stream(handle.generate, rest, *sizes, turn), params)

    def stream_diffusion(
        self, model: DiffusionSettings, params: DiffusionParams
    ) -> AsyncGenerator[Diffusing, None]:
        """Decode codes by diffusion. Raises InvalidRequest where they do not fit the model."""
        handle = self._handles[model.name].options(stream=True)
        return stream_again(handle.generate, params)

    async def encode_audio(self, model: EnCodecSettings, audio: Waveform) -> Codes:
        """Encode audio in pieces of `PIECE_S` seconds."""
        samples = audio.array()
        return await self.encode_pieces(model, lambda at, end: samples[:, at:end], audio.samples)

    async def encode_pieces(
        self,
        model: EnCodecSettings,
        read: Callable[[int, int], NDArray[np.float32]],
        total: int,
    ) -> Codes:
        """Encode `total` samples, which `read` returns from a first one to before a last one.

        `read` is called on a thread for each piece of `PIECE_S` seconds.
        """
        codec, info = self._handles[model.name], await self._registry.describe_codec(model)
        parts, state = [], b""
        for start, end in split_length(total, int(PIECE_S * info.sample_rate)):
            samples = await asyncio.to_thread(read, start, end)
            piece = AudioPiece(Waveform.pack(samples, info.sample_rate), state, end == total)
            made: CodesPiece = await call_again(codec.encode, piece)
            parts.append(made.codes.array())
            state = made.state
        return Codes.join(parts)

    async def encode_prompt(self, pair: ModelWithCodec, audio: Waveform) -> Codes:
        """Encode audio to the codes that a language model continues."""
        codes = await self.encode_audio(self._registry.get_codec(pair.settings), audio)
        return Codes.pack(codes.array()[: pair.language_model.codebooks])

    async def decode_codes(self, model: EnCodecSettings, codes: Codes) -> Waveform:
        """Decode codes. Raises InvalidRequest where they do not fit the codec."""
        async with aclosing(self.decode_pieces(model, codes)) as pieces:
            parts = [piece async for piece in pieces]
        if len(parts) == 1:
            return parts[0]
        joined = np.concatenate([part.array() for part in parts], axis=1)
        return Waveform.pack(joined, parts[0].sample_rate)

    async def decode_pieces(
        self, model: EnCodecSettings, codes: Codes
    ) -> AsyncGenerator[Waveform, None]:
        """Decode codes, and yield the audio in pieces of `PIECE_S` seconds.

        Raises InvalidRequest where they do not fit the codec.
        """
        codec, info = self._handles[model.name], await self._registry.describe_codec(model)
        frames, state = codes.array(), b""
        for start, end in split_length(codes.frames, int(PIECE_S * info.frame_rate)):
            piece = CodesPiece(Codes.pack(frames[:, start:end]), state, end == codes.frames)
            made: AudioPiece = await call_again(codec.decode, piece)
            state = made.state
            yield made.audio

    async def score_audio(self, model: DiscriminatorsSettings, audio: Waveform) -> Analysis:
        """Score audio by the discriminators, in windows of `WINDOW_S` seconds."""
        discriminators = self._handles[model.name]
        info = await self._registry.describe_discriminators(model)
        samples, size = audio.array(), int(WINDOW_S * info.sample_rate)
        windows = [
            Waveform.pack(samples[:, start:end], info.sample_rate)
            for start, end in split_length(audio.samples, size)
        ]
        scored = await gather_all(call_again(discriminators.analyze, one) for one in windows)
        return combine(scored, info)

    async def probe_upload(self, data: bytes, limits: MediaLimits, field: str) -> Upload:
        """Return an upload with its length, rate and channels, without decoding it.

        Raises InvalidAudio, which names the upload's `field`.
        """
        with _name_field(field):
            info: UploadInfo = await call(self._handles[MEDIA].probe, data, limits)
        return Upload(data, field, limits, info)

    async def decode_upload(self, upload: Upload, sample_rate: int, channels: int) -> Waveform:
        """Decode an upload to samples at a rate. Raises InvalidAudio, which names its field."""
        decode = self._handles[MEDIA].decode
        with _name_field(upload.field):
            arguments = upload.data, upload.limits, sample_rate, channels
            audio: Waveform = await call(decode, *arguments)
        return audio


@contextmanager
def _name_field(field: str) -> Iterator[None]:
    """Add the field of the upload to an InvalidAudio error."""
    try:
        yield
    except InvalidAudio as error:
        raise InvalidAudio(error.message, field) from error
