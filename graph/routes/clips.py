"""The answers to a request to generate: a file, JSON, a file that grows, or events."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Annotated

from fastapi import Request, Response
from pydantic import BaseModel, Field

from engine.params import Codes
from graph.audio.file import Growing, whole
from graph.audio.output import Output
from graph.cache import Answer, Found
from graph.calls import together
from graph.errors import UNFORESEEN, body_of, described
from graph.order import Order
from graph.pipeline import Clip, ClipRequest, Progress
from graph.registry import Voice
from graph.routes.answers import timing
from graph.service import Service
from graph.streams import KEEP_ALIVE, KEEP_ALIVE_S, Streamed, event, merged


class GeneratedClip(BaseModel):
    """One clip."""

    prompt: str
    variation: int
    """From 0 to n - 1; the same prompt, seed and variation give the same clip."""
    duration: float
    """Seconds."""
    sample_rate: int
    channels: int
    audio: Annotated[str | None, Field(description="The file, in base64.")] = None
    codes: list[list[int]] | None = None
    """[codebooks][frames], where they were asked for."""


class GenerationsAnswer(BaseModel):
    """Several clips, or one with its codes."""

    model: str
    seed: int
    format: str
    clips: list[GeneratedClip]


class ProgressEvent(BaseModel):
    """How far a clip is."""

    clip: int
    """Its place among those asked for, from 0."""
    stage: str
    done: int
    total: int
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""


class AudioEvent(BaseModel):
    """The next bytes of a clip's file."""

    clip: int
    audio: str
    """In base64; all of a clip's, joined, are its file."""


def ordered(
    request: Request,
    voice: Voice,
    clips: list[ClipRequest],
    output: Output,
    *,
    return_codes: bool = False,
    repeatable: bool = False,
    headers: dict[str, str] | None = None,
) -> Order:
    """Return what a request comes to, and note its model for what counts it."""
    state = request.state
    state.model = voice.model.name
    return Order(
        state.share, state.began, voice, clips, output, return_codes, repeatable, headers or {}
    )


async def whole_answer(service: Service, order: Order) -> Response:
    """Answer with the file of the only clip, or with all and their codes in JSON.

    What the same request would get again is kept; while it is made, others wait for it as well.
    """
    make = _file if len(order.clips) == 1 and not order.return_codes else _json
    if order.repeatable and service.limits.cache_bytes:
        key = await asyncio.to_thread(order.key)
        answer, found = await service.cache.get(key, lambda: make(service, order))
        service.metrics.looked_up(order.voice.model.name, found)
        return _response(answer, found)
    return _response(await make(service, order), None)


def _response(answer: Answer, found: Found | None) -> Response:
    headers = answer.headers | ({"x-cache": found} if found else {})
    if found in ("hit", "joined"):
        headers.pop("server-timing", None)  # it tells of another request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


async def _file(service: Service, order: Order) -> Answer:
    (wanted,) = order.clips
    async with _charged(service, order):
        clip = await _clip(service, order, wanted)
    file = await asyncio.to_thread(whole, clip.audio, order.output, order.tags(wanted))
    headers = order.all_headers() | {"server-timing": timing(clip.seconds, order.began)}
    return Answer(file.data, order.output.kind.media_type, headers)


async def _json(service: Service, order: Order) -> Answer:
    wanted = order.clips
    async with _charged(service, order):
        clips = await together(_clip(service, order, one) for one in wanted)

    def body() -> bytes:
        all_of_them = []
        for one, clip in zip(wanted, clips, strict=True):
            file = whole(clip.audio, order.output, order.tags(one))
            data = base64.b64encode(file.data).decode()
            all_of_them.append(_described(order, one, clip.codes, file.seconds, data))
        return _answer(order, all_of_them).model_dump_json(exclude_none=True).encode()

    return Answer(await asyncio.to_thread(body), "application/json", order.all_headers())


async def _clip(service: Service, order: Order, wanted: ClipRequest) -> Clip:
    clip = await service.pipeline.clip(order.voice.model, wanted)
    _count(service, order, clip)
    return clip


def _count(service: Service, order: Order, clip: Clip) -> None:
    counted = service.metrics.clip(order.voice.model.name, order.began)
    counted.came(clip.audio.samples / clip.audio.sample_rate)
    counted.ended()


async def growing_answer(service: Service, order: Order) -> Response:
    """Answer with the file of the only clip while it is made, or at once where it is kept."""
    kept = None
    if order.repeatable:
        kept = service.cache.kept(await asyncio.to_thread(order.key))
    if kept:
        service.metrics.looked_up(order.voice.model.name, "hit")
        return _response(kept, "hit")
    (wanted,) = order.clips
    media_type, headers = order.output.kind.media_type, order.all_headers()
    parts = charged_parts(service, order, file_parts(service, order, wanted, []))
    return await Streamed.begin(parts, media_type=media_type, headers=headers)


async def event_answer(
    request: Request, service: Service, order: Order, *, stream: bool
) -> Response:
    """Answer with events: `progress`, or `audio` as it is made; at last `done` or `error`."""
    events = _all_events(service, order, stream)
    return await streamed_events(
        service, order, events, lambda error: event("error", body_of(request, error))
    )


async def streamed_events(
    service: Service,
    order: Order,
    events: AsyncGenerator[bytes, None],
    tell: Callable[[Exception], bytes],
) -> Response:
    """Answer with events once the order is let in; what fails then is another, by `tell`.

    While none comes for long, a comment does, and what fails after that has no status any more.
    """
    made = merged([charged_parts(service, order, events)], KEEP_ALIVE, KEEP_ALIVE_S)
    headers = order.all_headers() | {"cache-control": "no-store"}
    parts = told_errors(made, tell)
    return await Streamed.begin(parts, media_type="text/event-stream", headers=headers)


def _charged(service: Service, order: Order) -> AbstractAsyncContextManager[None]:
    return service.admission.charged(order.share, order.voice.model.name, order.row_seconds)


async def charged_parts(
    service: Service, order: Order, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield parts, once the order is let in, and hold its charge until they end."""
    async with aclosing(parts), _charged(service, order):
        async for part in parts:
            yield part


async def told_errors(
    parts: AsyncGenerator[bytes, None], tell: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes, None]:
    """Yield parts; what fails after the first of them ends the stream with what `tell` says."""
    begun = False
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
                begun = True
    except Exception as error:
        if not begun:
            raise
        yield tell(error)
        if described(error).code == UNFORESEEN:
            raise


async def _all_events(service: Service, order: Order, stream: bool) -> AsyncGenerator[bytes, None]:
    made: dict[int, GeneratedClip] = {}
    of_a_clip = _growing_clip if stream else _whole_clip
    sources = [of_a_clip(service, order, number, made) for number in range(len(order.clips))]
    async with aclosing(merged(sources)) as events:
        async for one in events:
            yield one
    yield event("done", _answer(order, [made[number] for number in sorted(made)]))


async def _growing_clip(
    service: Service, order: Order, number: int, made: dict[int, GeneratedClip]
) -> AsyncGenerator[bytes, None]:
    wanted, codes = order.clips[number], list[Codes]()
    async with aclosing(file_parts(service, order, wanted, codes)) as parts:
        async for data in parts:
            yield _audio_event(number, data)
    joined = Codes.join([one.array() for one in codes])
    seconds = order.samples(wanted) / order.voice.codec.sample_rate
    made[number] = _described(order, wanted, joined, seconds, None)


async def _whole_clip(
    service: Service, order: Order, number: int, made: dict[int, GeneratedClip]
) -> AsyncGenerator[bytes, None]:
    wanted = order.clips[number]
    async with aclosing(service.pipeline.generate(order.voice.model, wanted)) as answers:
        async for answer in answers:
            if isinstance(answer, Progress):
                told = ProgressEvent(
                    clip=number, stage=answer.stage, done=answer.done, total=answer.total
                )
                yield event("progress", told)
    assert isinstance(answer, Clip)
    _count(service, order, answer)
    file = await asyncio.to_thread(whole, answer.audio, order.output, order.tags(wanted))
    yield await asyncio.to_thread(_audio_event, number, file.data)
    made[number] = _described(order, wanted, answer.codes, file.seconds, None)


async def file_parts(
    service: Service, order: Order, wanted: ClipRequest, codes: list[Codes]
) -> AsyncGenerator[bytes, None]:
    """Yield a clip's file while it is made, and note its codes."""
    codec = order.voice.codec
    file = Growing(
        order.output, codec.sample_rate, codec.channels, order.samples(wanted), order.tags(wanted)
    )
    counted = service.metrics.clip(order.voice.model.name, order.began)
    async with aclosing(service.pipeline.stream(order.voice.model, wanted)) as parts:
        async for part in parts:
            codes.append(part.codes)
            data = await asyncio.to_thread(file.add, part.audio)
            if part.audio.samples:
                counted.came(part.audio.samples / codec.sample_rate)
            if data:
                yield data
    counted.ended()
    yield await asyncio.to_thread(file.end)


def _audio_event(number: int, data: bytes) -> bytes:
    return event("audio", AudioEvent(clip=number, audio=base64.b64encode(data).decode()))


def _answer(order: Order, clips: list[GeneratedClip]) -> GenerationsAnswer:
    return GenerationsAnswer(
        model=order.voice.model.name, seed=order.seed, format=order.output.format, clips=clips
    )


def _described(
    order: Order, wanted: ClipRequest, codes: Codes, seconds: float, audio: str | None
) -> GeneratedClip:
    codec = order.voice.codec
    return GeneratedClip(
        prompt=wanted.params.text,
        variation=wanted.params.variation,
        duration=seconds,
        sample_rate=order.output.rate_for(codec.sample_rate),
        channels=codec.channels,
        audio=audio,
        codes=codes.array().tolist() if order.return_codes else None,
    )
