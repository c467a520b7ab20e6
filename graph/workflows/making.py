"""Makes what a plan says: parts at once, mixed, as files."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import BaseModel, Field

from api.audio.file import whole
from api.audio.finishing import PEAK_DB, decibels, loudness, true_peak
from api.audio.tags import Tags
from api.service import Service
from api.streams import merged
from engine.params import Codes, Waveform
from graph.making import count
from graph.pipeline import Clip, Progress
from graph.workflows.mixing import Samples, amplified, leveled, loop_resampled, summed
from graph.workflows.plan import Mixed, Part, Plan, Stem


class Track(BaseModel):
    """Audio, and where it lies in the mix."""

    name: str
    start: Annotated[
        float | None, Field(description="Seconds; left out where it is not in the mix.")
    ] = None
    duration: float
    """Seconds."""
    audio: str
    """The file, in base64."""


class Timing(BaseModel):
    """A section of a song, or a passage of a podcast, in seconds."""

    name: str
    start: float
    end: float


class WorkflowAnswer(BaseModel):
    """A mix, and what it is made of."""

    model: str
    seed: int
    format: str
    sample_rate: int
    channels: int
    duration: float
    """Of the mix, in seconds."""
    loudness: Annotated[
        float | None,
        Field(description="Of the mix, in LUFS; left out where it is too quiet to have one."),
    ] = None
    mix: Track
    stems: list[Track]
    """Those with a start add up to the mix; none where it has but one part."""
    timing: list[Timing]
    distribution: Annotated[Track | None, Field(description="Where it was asked for.")] = None


class WorkflowProgress(BaseModel):
    """How far a part is, and all of them."""

    part: str
    stage: str
    done: int
    total: int
    """`generate` counts frames of codes, `mix` files."""
    progress: float
    """From 0 to 1, of all that is to be generated."""


@dataclass
class Takes:
    """What has been made so far."""

    audio: dict[Part, Waveform]
    frames: dict[Part, int]


async def made(
    service: Service, plan: Plan
) -> AsyncGenerator[WorkflowProgress | WorkflowAnswer, None]:
    """Yield how far it is, now and then, and at last the answer; holds no charge.

    Who leaves stops the models within one step.
    """
    takes = Takes({}, dict.fromkeys(plan.parts, 0))
    async with aclosing(merged([_chain(service, plan, c, takes) for c in plan.chains])) as told:
        async for progress in told:
            yield progress
    yield WorkflowProgress(part="mix", stage="mix", done=0, total=1, progress=1.0)
    mixed = await asyncio.to_thread(plan.mixed, takes.audio)
    yield await _answer(service, plan, mixed)


async def _chain(
    service: Service, plan: Plan, chain: Sequence[Part], takes: Takes
) -> AsyncGenerator[WorkflowProgress, None]:
    """Make parts one after the other, each from the codes of the one before."""
    codes = None
    for part in chain:
        clip = part.request(codes)
        known = clip.params.frames - part.params.frames
        async with aclosing(service.pipeline.generate(part.voice.model, clip)) as answers:
            async for answer in answers:
                if isinstance(answer, Progress):
                    takes.frames[part] = answer.done - known
                    yield _progress(part, takes)
        assert isinstance(answer, Clip)
        count(service, plan.order_of(part), answer)
        takes.audio[part], codes = answer.audio, answer.codes


def _progress(part: Part, takes: Takes) -> WorkflowProgress:
    done, total = takes.frames[part], part.params.frames
    of_all = sum(takes.frames.values()) / sum(one.params.frames for one in takes.frames)
    return WorkflowProgress(
        part=part.name, stage="generate", done=done, total=total, progress=of_all
    )


async def _answer(service: Service, plan: Plan, mixed: Mixed) -> WorkflowAnswer:
    """Level the mix and make its files: each on a thread, so that who leaves ends it in between."""
    placed = [stem.placed for stem in mixed.stems]
    mix = await asyncio.to_thread(summed, placed, mixed.total)
    mix, placed = await asyncio.to_thread(leveled, mix, placed, mixed.sample_rate, plan.loudness)
    tracks = [await _track(service, plan, mixed, "mix", mix, 0, plan.tags())]
    stems = [replace(s, placed=p) for s, p in zip(mixed.stems, placed, strict=True)]
    for stem in stems if len(stems) > 1 else []:
        tracks.append(await _stem_track(service, plan, mixed, stem))
    rate = mixed.sample_rate
    return WorkflowAnswer(
        model=plan.voice.model.name,
        seed=plan.seed,
        format=plan.output.format,
        sample_rate=plan.output.rate_for(rate),
        channels=mix.shape[0],
        duration=mixed.total / rate,
        loudness=await asyncio.to_thread(loudness, mix, rate),
        mix=tracks[0],
        stems=tracks[1:],
        timing=[
            Timing(name=span.name, start=span.start / rate, end=span.end / rate)
            for span in mixed.timing
        ],
        distribution=await _distribution(service, plan, mixed, mix),
    )


async def _stem_track(service: Service, plan: Plan, mixed: Mixed, stem: Stem) -> Track:
    placed, tags = stem.placed, plan.tags_of(stem)
    return await _track(service, plan, mixed, stem.name, placed.samples, placed.start, tags)


async def _distribution(service: Service, plan: Plan, mixed: Mixed, mix: Samples) -> Track | None:
    """Return the mix once more, through the codec."""
    wanted, rate = plan.distribution, mixed.sample_rate
    if wanted is None:
        return None
    codes = await service.pipeline.encode(wanted.codec, Waveform.pack(mix, rate))
    kept = Codes.pack(codes.array()[: wanted.codebooks])
    decoded = await service.pipeline.decode(wanted.codec, kept)
    samples = decoded.array()[:, : mix.shape[1]]
    peak = await asyncio.to_thread(true_peak, samples)
    samples = amplified(samples, min(1.0, decibels(PEAK_DB) / max(peak, 1e-9)))
    return await _track(service, plan, mixed, "distribution", samples, 0, plan.tags())


async def _track(
    service: Service,
    plan: Plan,
    mixed: Mixed,
    name: str,
    samples: Samples,
    start: int | None,
    tags: Tags | None,
) -> Track:
    def made() -> Track:
        audio, rate = samples, mixed.sample_rate
        if mixed.is_loop:  # a file's own change of rate knows of no going round
            rate = plan.output.rate_for(rate)
            audio = loop_resampled(samples, mixed.sample_rate, rate)
        file = whole(Waveform.pack(audio, rate), plan.output, tags, service.signer)
        return Track(
            name=name,
            start=None if start is None else start / mixed.sample_rate,
            duration=samples.shape[1] / mixed.sample_rate,
            audio=base64.b64encode(file.data).decode(),
        )

    return await asyncio.to_thread(made)
