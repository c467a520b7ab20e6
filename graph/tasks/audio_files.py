"""Defines the tasks of files: encode, decode, regenerate by diffusion, and analyze."""

from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from deployments.ledger_state import Charge
from deployments.settings import DiffusionSettings, DiscriminatorsSettings, EnCodecSettings
from engine.analysis import Analysis
from engine.params import CodecInfo, Codes, DiffusionParams, DiscriminatorsInfo, Waveform
from graph.pipeline import Pipeline
from graph.price import charge_audio, charge_uploads
from graph.settings import MEDIA
from graph.tasks.task import (
    ChargeLeft,
    Event,
    Progress,
    Result,
    Task,
    Turns,
    Upload,
    count_audio_bytes,
    count_upload_bytes,
    hash_upload,
)


@dataclass(frozen=True)
class EncodedAudio(Result):
    """A file's codes, and its samples per channel at the codec's rate."""

    codes: Codes
    samples: int


@dataclass(frozen=True)
class DecodedAudio(Result):
    """The audio that codes stand for."""

    audio: Waveform


@dataclass(frozen=True)
class AnalyzedAudio(Result):
    """The scores of a file by the discriminators."""

    analysis: Analysis


@dataclass(frozen=True, kw_only=True)
class EncodeTask(Task):
    """A file to encode by a codec."""

    pipeline: Pipeline
    codec: EnCodecSettings
    info: CodecInfo
    upload: Upload
    codebooks: int
    """The number of codebooks to keep."""

    @property
    def model(self) -> str:
        """The name of the codec."""
        return self.codec.name

    def price(self) -> Sequence[Charge]:
        """Return the price of the file's length, and of decoding it."""
        charge = charge_audio(self.share, self.model, self.upload.info.seconds)
        return [charge, *charge_uploads(self.share, self.upload)]

    def count_bytes(self) -> int:
        """Return the bytes of the file and its samples."""
        return count_upload_bytes(self.upload, self.info.sample_rate, self.info.channels)

    def content(self) -> Hashable:
        """Return the codec, what is kept, and the file's hash."""
        return self.model, self.codebooks, hash_upload(self.upload.data)

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Decode the file and encode its samples."""
        info = self.info
        audio = await self.pipeline.decode_upload(self.upload, info.sample_rate, info.channels)
        yield ChargeLeft(MEDIA)
        codes = await self.pipeline.encode_audio(self.codec, audio)
        yield EncodedAudio(Codes.pack(codes.array()[: self.codebooks]), audio.samples)


@dataclass(frozen=True, kw_only=True)
class DecodeTask(Task):
    """Codes to decode by their codec."""

    pipeline: Pipeline
    codec: EnCodecSettings
    info: CodecInfo
    codes: Codes
    samples: int | None
    """Samples per channel to keep; None keeps those of all frames."""

    @property
    def model(self) -> str:
        """The name of the codec."""
        return self.codec.name

    def price(self) -> Sequence[Charge]:
        """Return the price of the audio that the codes stand for."""
        return [charge_audio(self.share, self.model, self.codes.frames / self.info.frame_rate)]

    def count_bytes(self) -> int:
        """Return the bytes of the decoded samples."""
        info = self.info
        seconds = self.codes.frames / info.frame_rate
        return count_audio_bytes(seconds, info.sample_rate, info.channels)

    def content(self) -> Hashable:
        """Return the codec, the length, and the codes' hash."""
        return self.model, self.samples, self.codes.codebooks, hash_upload(self.codes.data)

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Decode the codes."""
        audio = await self.pipeline.decode_codes(self.codec, self.codes)
        yield DecodedAudio(cut_samples(audio, self.samples))


@dataclass(frozen=True, kw_only=True)
class DiffuseTask(Task):
    """Codes, or a file that is encoded first, to decode by diffusion."""

    pipeline: Pipeline
    diffusion: DiffusionSettings
    codec: EnCodecSettings
    codec_info: CodecInfo
    info: CodecInfo
    """The codes that the diffusion model takes."""
    source: Codes | Upload
    samples: int | None
    """Samples per channel to keep, where the source is codes."""
    drawn_seed: int

    @property
    def model(self) -> str:
        """The name of the diffusion model."""
        return self.diffusion.name

    @property
    def seed(self) -> int:
        """The seed of the noise."""
        return self.drawn_seed

    def price(self) -> Sequence[Charge]:
        """Return the price of the audio, and of encoding a file."""
        if isinstance(self.source, Codes):
            seconds = self.source.frames / self.info.frame_rate
            return [charge_audio(self.share, self.model, seconds)]
        seconds = self.source.info.seconds
        names = self.model, self.codec.name
        charges = [charge_audio(self.share, name, seconds) for name in names]
        return [*charges, *charge_uploads(self.share, self.source)]

    def count_bytes(self) -> int:
        """Return the bytes of the audio, and of the file that it is made from."""
        info, source = self.info, self.source
        if isinstance(source, Upload):
            return 2 * count_upload_bytes(source, info.sample_rate, info.channels)
        return count_audio_bytes(source.frames / info.frame_rate, info.sample_rate, info.channels)

    def content(self) -> Hashable:
        """Return the model, the seed, the length, and the source's hash."""
        kind = type(self.source).__name__
        return self.model, self.seed, self.samples, kind, hash_upload(self.source.data)

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Encode the file, if there is one, then diffuse."""
        if isinstance(self.source, Codes):
            params = DiffusionParams(self.source, self.seed)
        else:
            info, upload = self.codec_info, self.source
            audio = await self.pipeline.decode_upload(upload, info.sample_rate, info.channels)
            yield ChargeLeft(MEDIA)
            params = await self._encode_audio(audio)
            yield ChargeLeft(self.codec.name)
        answers = self.pipeline.stream_diffusion(self.diffusion, params)
        async with aclosing(answers):
            async for answer in answers:
                share = answer.done / answer.total
                yield Progress(0, "decode", answer.done, answer.total, share)
        assert answer.audio
        yield DecodedAudio(cut_samples(answer.audio, self.samples))

    async def _encode_audio(self, audio: Waveform) -> DiffusionParams:
        codes = await self.pipeline.encode_audio(self.codec, audio)
        kept = Codes.pack(codes.array()[: self.info.codebooks])
        return DiffusionParams(kept, self.seed, equalize=False, samples=audio.samples)


@dataclass(frozen=True, kw_only=True)
class AnalyzeTask(Task):
    """A file for the discriminators to score."""

    pipeline: Pipeline
    discriminators: DiscriminatorsSettings
    info: DiscriminatorsInfo
    upload: Upload

    @property
    def model(self) -> str:
        """The name of the discriminators."""
        return self.discriminators.name

    def price(self) -> Sequence[Charge]:
        """Return the price of the file's length, and of decoding it."""
        charge = charge_audio(self.share, self.model, self.upload.info.seconds)
        return [charge, *charge_uploads(self.share, self.upload)]

    def count_bytes(self) -> int:
        """Return the bytes of the file and its samples."""
        return count_upload_bytes(self.upload, self.info.sample_rate, self.info.channels)

    def content(self) -> Hashable:
        """Return the model and the file's hash."""
        return self.model, hash_upload(self.upload.data)

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Decode the file and score it."""
        info = self.info
        audio = await self.pipeline.decode_upload(self.upload, info.sample_rate, info.channels)
        yield ChargeLeft(MEDIA)
        yield AnalyzedAudio(await self.pipeline.score_audio(self.discriminators, audio))


def cut_samples(audio: Waveform, samples: int | None) -> Waveform:
    """Return the first samples of each channel, or all."""
    if samples is None:
        return audio
    return Waveform.pack(audio.array()[:, :samples], audio.sample_rate)
