"""Defines the tasks that generate clips by one language model, and passages of live sessions."""

from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from deployments.ledger_state import Charge
from engine.params import Codes, Waveform
from engine.windows import cut_melody
from graph.calls import merge_streams
from graph.errors import ApiError
from graph.pipeline import Pipeline
from graph.price import charge_audio, charge_clips, charge_uploads
from graph.registry import ModelWithCodec
from graph.settings import MEDIA
from graph.tasks.clip_charges import ClipCharges
from graph.tasks.task import (
    AudioPart,
    ChargeLeft,
    Clip,
    ClipAudio,
    ClipRequest,
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
class AudioPrompt:
    """The part of an upload that clips continue, in seconds."""

    upload: Upload
    start: float
    end: float

    def cut_audio(self, audio: Waveform) -> Waveform:
        """Cut the part out of the decoded upload. Raises ApiError 422 where it is empty."""
        first, last = (int(second * audio.sample_rate) for second in (self.start, self.end))
        part = audio.array()[:, first:last]
        if not part.size:
            message = f"start: nothing lies between start and end; the file has {audio.seconds:g} s"
            raise ApiError(422, "invalid_value", message, "start")
        return Waveform.pack(part, audio.sample_rate)


@dataclass(frozen=True)
class Clips(Result):
    """All clips of a generation, in order."""

    clips: Sequence[Clip]


@dataclass(frozen=True, kw_only=True)
class GenerationTask(Task):
    """Clips to generate by one model. Uploads are decoded and encoded when it runs."""

    pipeline: Pipeline
    pair: ModelWithCodec
    clips: Sequence[ClipRequest]
    streamed: bool = False
    """Whether audio is sent in parts while it is made."""
    melody: Upload | None = None
    """The file whose melody the clips follow."""
    prompt: AudioPrompt | None = None
    """The audio that all clips continue; codes to continue are in the clips' parameters."""

    @property
    def model(self) -> str:
        """The name of the language model."""
        return self.pair.settings.name

    @property
    def seed(self) -> int:
        """The seed of all clips; their texts and variations tell them apart."""
        return self.clips[0].params.seed

    @property
    def continues(self) -> bool:
        """Whether the clips continue audio or codes."""
        return self.prompt is not None or self.clips[0].params.prompt is not None

    def price(self) -> Sequence[Charge]:
        """Return the price of the clips, of diffusion, and of what is done to the uploads."""
        rate, info = self.pair.codec.frame_rate, self.pair.language_model
        prompt = self.prompt
        encoded_s = prompt.end - prompt.start if prompt else 0.0
        params = [clip.params for clip in self.clips]
        charges = [charge_clips(self.share, self.model, params, info, int(encoded_s * rate))]
        if diffusion := self.clips[0].diffusion:
            charges.append(charge_audio(self.share, diffusion.name, self._audio_s))
        if prompt:
            charges.append(charge_audio(self.share, self.pair.settings.codec, encoded_s))
        return [
            *charges,
            *charge_uploads(self.share, self.melody, prompt.upload if prompt else None),
        ]

    @property
    def _audio_s(self) -> float:
        """The seconds of audio that all clips hold."""
        return sum(clip.params.frames for clip in self.clips) / self.pair.codec.frame_rate

    def count_bytes(self) -> int:
        """Return the bytes of the uploads and of the clips, which are not held if streamed."""
        codec, lm_rate = self.pair.codec, self.pair.language_model.sample_rate
        prompt = self.prompt.upload if self.prompt else None
        held = count_upload_bytes(self.melody, lm_rate, 1)
        held += count_upload_bytes(prompt, codec.sample_rate, codec.channels)
        frames = 0 if self.streamed else sum(clip.params.frames for clip in self.clips)
        return held + count_audio_bytes(
            frames / codec.frame_rate, codec.sample_rate, codec.channels
        )

    def content(self) -> Hashable:
        """Return the clips, with hashes of their uploads."""
        clips = tuple(_hash_prompt(clip) for clip in self.clips)
        melody = self.melody and hash_upload(self.melody.data)
        prompt = self.prompt
        part = prompt and (hash_upload(prompt.upload.data), prompt.start, prompt.end)
        return self.model, clips, melody, part

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Decode the uploads, then generate all clips side by side."""
        melody = await self._decode_melody()
        prompt = await self._encode_prompt()
        yield ChargeLeft(MEDIA)
        if self.prompt:
            yield ChargeLeft(self.pair.settings.codec)
        run_clip = self._stream_clip if self.streamed else self._generate_clip
        clips = [
            replace(
                clip,
                params=replace(clip.params, melody=melody, prompt=prompt),
                turn=turns[self.model].get_part(number / len(self.clips)),
            )
            for number, clip in enumerate(self.clips)
        ]
        charges = self._follow_charges(clips)
        made: dict[int, Clip] = {}
        frames = dict.fromkeys(range(len(clips)), 0)
        sources = [run_clip(number, clip, frames) for number, clip in enumerate(clips)]
        async with aclosing(merge_streams(sources)) as events:
            async for event in events:
                for change in charges.follow_event(event):
                    yield change
                if isinstance(event, Clip):
                    made[event.clip] = event
                yield event
        yield Clips([made[number] for number in sorted(made)])

    def _follow_charges(self, clips: Sequence[ClipRequest]) -> ClipCharges:
        """Return what follows the charges of clips whose prompts are known."""
        prompt, diffusion = clips[0].params.prompt, clips[0].diffusion
        known = prompt.frames if prompt else 0
        decoder = diffusion.name if diffusion else self.pair.settings.codec
        return ClipCharges(
            self.model,
            charge_audio(self.share, decoder, self._audio_s),
            {number: clip.params.frames - known for number, clip in enumerate(clips)},
            known_frames=known,
            at_once=len(clips),
            begin=diffusion is None,
        )

    async def _decode_melody(self) -> Waveform | None:
        if self.melody is None:
            return None
        info, params = self.pair.language_model, self.clips[0].params
        melody = await self.pipeline.decode_upload(self.melody, info.sample_rate, 1)
        return cut_melody(info, melody, params.frames, params.stride_seconds)

    async def _encode_prompt(self) -> Codes | None:
        """Return the codes that all clips continue. Raises ApiError 422 where they fill a clip."""
        if self.prompt is None:
            return self.clips[0].params.prompt
        codec = self.pair.codec
        audio = await self.pipeline.decode_upload(
            self.prompt.upload, codec.sample_rate, codec.channels
        )
        codes = await self.pipeline.encode_prompt(self.pair, self.prompt.cut_audio(audio))
        check_room(codes.frames, self.clips[0].params.frames, codec.frame_rate)
        return codes

    async def _generate_clip(
        self, number: int, request: ClipRequest, frames: dict[int, int]
    ) -> AsyncGenerator[Event, None]:
        """Yield the progress of a clip, and at last the clip."""
        answers = self.pipeline.generate_clip(self.pair.settings, request)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, ClipAudio):
                    break
                if answer.stage == "generate":
                    frames[number] = answer.done
                total = len(frames) * request.params.frames
                progress = sum(frames.values()) / total
                yield Progress(number, answer.stage, answer.done, answer.total, progress)
        assert isinstance(answer, ClipAudio)
        diffusion = request.diffusion.name if request.diffusion else None
        yield Clip(
            number, self.model, answer.codes, answer.audio,
            seconds=answer.seconds, diffusion=diffusion,
        )  # fmt: skip

    async def _stream_clip(
        self, number: int, request: ClipRequest, frames: dict[int, int]
    ) -> AsyncGenerator[Event, None]:
        """Yield a clip's audio while it is made, and at last the clip without audio."""
        codec, codes = self.pair.codec, []
        length = request.params.frames - request.skipped_frames
        total = int(length * codec.sample_rate / codec.frame_rate)
        parts = self.pipeline.stream_clip(self.pair.settings, request)
        async with aclosing(parts):
            async for part in parts:
                codes.append(part.codes.array())
                frames[number] += part.codes.frames
                yield AudioPart(number, part.codes, part.audio, total)
        yield Clip(number, self.model, Codes.join(codes), None, total)


def check_room(prompt_frames: int, frames: int, frame_rate: float) -> None:
    """Raise ApiError 422 where a prompt leaves nothing of a clip to generate."""
    if prompt_frames >= frames:
        seconds, duration = prompt_frames / frame_rate, frames / frame_rate
        message = f"duration: {duration:g} s; what is continued has {seconds:g} s already"
        raise ApiError(422, "invalid_value", message, "duration")


def _hash_prompt(clip: ClipRequest) -> Hashable:
    """Return a clip with the hash of its prompt instead of the codes."""
    prompt = clip.params.prompt
    without = replace(clip, params=replace(clip.params, prompt=None))
    return without, prompt and hash_upload(prompt.data)


@dataclass(frozen=True)
class Passage(Result):
    """The end of a passage of a live session."""


@dataclass(frozen=True, kw_only=True)
class PassageTask(Task):
    """The next passage of a live session, which continues the codes and the state before it."""

    pipeline: Pipeline
    pair: ModelWithCodec
    request: ClipRequest
    state: bytes

    @property
    def model(self) -> str:
        """The name of the language model."""
        return self.pair.settings.name

    def price(self) -> Sequence[Charge]:
        """Return the price of the passage with its context, which is fed again."""
        info = self.pair.language_model
        return [charge_clips(self.share, self.model, [self.request.params], info)]

    def count_bytes(self) -> int:
        """Return 0: a passage is sent in parts."""
        return 0

    def content(self) -> Hashable:
        """Return the passage's parameters, although passages are never kept."""
        return self.request

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Yield the passage's audio while it is made."""
        request = replace(self.request, turn=turns[self.model].start)
        prompt = request.params.prompt
        fresh = request.params.frames - (prompt.frames if prompt else 0)
        decoding = charge_audio(
            self.share, self.pair.settings.codec, fresh / self.pair.codec.frame_rate
        )
        charges = ClipCharges(self.model, decoding, {0: fresh}, at_once=1)
        parts = self.pipeline.stream_passage(self.pair.settings, request, self.state)
        codes = []
        async with aclosing(parts):
            async for part in parts:
                codes.append(part.codes.array())
                event = AudioPart(0, part.codes, part.audio, state=part.state)
                for change in charges.follow_event(event):
                    yield change
                yield event
        yield Clip(0, self.model, Codes.join(codes), None)
        yield Passage()
