"""Runs workflows: several clips that are generated side by side or in chains, and mixed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from deployments.ledger_state import Charge, Share
from engine.params import GenerationParams, Waveform
from engine.windows import cut_melody
from graph.calls import merge_streams
from graph.pipeline import Pipeline
from graph.price import charge_audio, charge_uploads
from graph.registry import ModelWithCodec, Registry
from graph.settings import MEDIA, Limits
from graph.tasks.clip_charges import ClipCharges
from graph.tasks.task import (
    ChargeBegin,
    ChargeLeft,
    Clip,
    ClipAudio,
    Event,
    Progress,
    Result,
    Task,
    Turns,
    Upload,
    count_audio_bytes,
    count_upload_bytes,
)
from graph.workflows.distribution import Distribution, make_distribution
from graph.workflows.levels import Samples, measure_block_loudness
from graph.workflows.mix import Material, Mix
from graph.workflows.mixing import level_stems
from graph.workflows.planned_clip import PlannedClip


@dataclass(frozen=True)
class MixedAudio(Result):
    """A leveled mix with its stems."""

    mix: Mix
    loudness: float | None
    """The loudness in LUFS; None where the mix is too short or too quiet."""
    distribution: Samples | None


@dataclass(frozen=True)
class Context:
    """The values that every workflow is planned with."""

    share: Share
    began: float
    pipeline: Pipeline
    registry: Registry
    limits: Limits
    drawn: GenerationParams
    """The sampling, guidance and seed of all clips; each clip has its own text and frames."""
    body_hash: str
    """The hash of the request's body and uploads."""
    repeatable: bool
    model: str | None
    """The name of the model that was asked for."""


@dataclass(frozen=True, kw_only=True)
class WorkflowTask(Task):
    """A workflow that has been planned and checked."""

    name: str
    context: Context
    chains: Sequence[Sequence[PlannedClip]]
    """The chains are generated side by side, the clips of a chain one after the other."""
    mix: Callable[[Material], Mix]
    """The function that mixes the clips; it runs on a thread."""
    loudness: float
    """The loudness in LUFS that the mix is leveled to."""
    title: str
    """The text in the metadata of the mix's file."""
    seconds: float
    """The length of the mix in seconds."""
    distribution: Distribution | None = None
    melody: Upload | None = None
    """The file whose melody all clips follow."""
    speech: Upload | None = None
    """The speech that the mix contains beside the clips."""

    @property
    def clips(self) -> list[PlannedClip]:
        """All clips of all chains."""
        return [clip for chain in self.chains for clip in chain]

    @property
    def pair(self) -> ModelWithCodec:
        """The model of the first clip, by which the workflow is counted."""
        return self.clips[0].pair

    @property
    def model(self) -> str:
        """The name of the model of the first clip."""
        return self.pair.settings.name

    @property
    def seed(self) -> int:
        """The seed of all clips."""
        return self.clips[0].params.seed

    def price(self) -> Sequence[Charge]:
        """Return the price of the clips by model, and of decoding the uploads."""
        charges = []
        for model, clips in self._group_clips().items():
            row_seconds = sum(clip.price_clip() for clip in clips)
            charge = Charge(self.share.name, self.share.weight, model, row_seconds)
            charges.append(replace(charge, clips=self._count_at_once(model)))
        return [*charges, *charge_uploads(self.share, self.melody, self.speech)]

    def _group_clips(self) -> dict[str, list[PlannedClip]]:
        """Return the clips of each language model."""
        by_model: dict[str, list[PlannedClip]] = {}
        for clip in self.clips:
            by_model.setdefault(clip.pair.settings.name, []).append(clip)
        return by_model

    def _count_at_once(self, model: str) -> int:
        """Return how many clips of a model run side by side: one of each chain."""
        return sum(any(clip.pair.settings.name == model for clip in chain) for chain in self.chains)

    def _follow_charges(self, model: str, clips: Sequence[PlannedClip]) -> ClipCharges:
        frames = {self.clips.index(clip): clip.params.frames for clip in clips}
        pair = clips[0].pair
        seconds = sum(frames.values()) / pair.codec.frame_rate
        decoding = charge_audio(self.share, pair.settings.codec, seconds)
        return ClipCharges(model, decoding, frames, at_once=self._count_at_once(model))

    def count_bytes(self) -> int:
        """Return the bytes of the uploads, of the clips, and of their mix with its gains."""
        codec = self.pair.codec
        held = count_upload_bytes(self.melody, self.pair.language_model.sample_rate, 1)
        held += count_upload_bytes(self.speech, codec.sample_rate, codec.channels)
        made = sum(clip.params.frames / clip.pair.codec.frame_rate for clip in self.clips)
        seconds = made + self.seconds * (1 + 2 / codec.channels + bool(self.distribution))
        return held + count_audio_bytes(seconds, codec.sample_rate, codec.channels)

    def content(self) -> Hashable:
        """Return the body's hash, the drawn seed, and the lengths, which depend on the limits."""
        clips = tuple((c.name, c.pair.settings.name, c.params.frames) for c in self.clips)
        return self.name, self.context.body_hash, self.seed, self.seconds, clips

    async def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Generate the clips, then mix and level them."""
        melody = await self._decode_file(self.melody, self.pair.language_model.sample_rate, 1)
        codec = self.pair.codec
        speech = await self._decode_file(self.speech, codec.sample_rate, codec.channels)
        yield ChargeLeft(MEDIA)
        audio: dict[PlannedClip, Waveform] = {}
        frames = dict.fromkeys(self.clips, 0)
        charges = [self._follow_charges(*group) for group in self._group_clips().items()]
        sources = [
            self._generate_chain(chain, melody, audio, frames, turns) for chain in self.chains
        ]
        async with aclosing(merge_streams(sources)) as events:
            async for event in events:
                for change in (change for one in charges for change in one.follow_event(event)):
                    yield change
                yield event
        yield Progress(len(self.clips), "mix", 0, 1, 1.0, "mix")
        if self.distribution:
            name = self.distribution.codec.name
            charge = charge_audio(self.share, name, 2 * self.seconds)
            yield ChargeBegin(charge, f"{name} for the distribution")
        mix = await asyncio.to_thread(self.mix, Material(audio, speech))
        speech = None  # the stems are copies
        yield await self.level_mix(mix)

    async def _decode_file(self, file: Upload | None, rate: int, channels: int) -> Waveform | None:
        if file is None:
            return None
        return await self.context.pipeline.decode_upload(file, rate, channels)

    async def _generate_chain(
        self,
        chain: Sequence[PlannedClip],
        melody: Waveform | None,
        audio: dict[PlannedClip, Waveform],
        frames: dict[PlannedClip, int],
        turns: Turns,
    ) -> AsyncGenerator[Event, None]:
        """Generate clips one after the other, each from the codes of the one before it."""
        codes = None
        for clip in chain:
            number = self.clips.index(clip)
            request = clip.build_request(codes)
            turn = turns[clip.pair.settings.name].get_part(number / len(self.clips))
            request = replace(request, turn=turn)
            if melody:
                params, info = request.params, clip.pair.language_model
                heard = cut_melody(info, melody, params.frames, params.stride_seconds)
                request = replace(request, params=replace(params, melody=heard))
            known = request.params.frames - clip.params.frames
            answers = self.context.pipeline.generate_clip(clip.pair.settings, request)
            async with aclosing(answers):
                async for answer in answers:
                    if isinstance(answer, ClipAudio):
                        break
                    frames[clip] = answer.done - known
                    share = sum(frames.values()) / sum(one.params.frames for one in frames)
                    done, total = frames[clip], clip.params.frames
                    yield Progress(number, answer.stage, done, total, share, clip.name)
            assert isinstance(answer, ClipAudio)
            audio[clip], codes = answer.audio, answer.codes
            model = clip.pair.settings.name
            yield Clip(number, model, answer.codes, answer.audio, seconds=answer.seconds)

    async def level_mix(self, mix: Mix) -> MixedAudio:
        """Level a mix; each step on a thread, so that cancelling ends it in between."""
        rate, total = mix.sample_rate, mix.total
        leveling = mix.placed, total, rate, self.loudness
        placed = await asyncio.to_thread(level_stems, *leveling)
        stems = [replace(s, placed=p) for s, p in zip(mix.stems, placed, strict=True)]
        mix = replace(mix, stems=stems)
        loudness = await asyncio.to_thread(measure_block_loudness, mix.sum_blocks(), rate)
        distribution = None
        if self.distribution:
            pipeline = self.context.pipeline
            distribution = await make_distribution(pipeline, self.distribution, mix)
        return MixedAudio(mix, loudness, distribution)
