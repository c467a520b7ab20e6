"""The answers to a request to generate: a file, JSON, a file that grows, or events."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing

from fastapi import Request, Response
from opentelemetry.trace import get_current_span
from pydantic import BaseModel

from api.audio.file import Growing
from api.audio.output import Output
from api.service import Service
from api.streams import KEEP_ALIVE, KEEP_ALIVE_S, Streamed, event, merged
from engine.params import Codes, GenerationParams
from graph.cache import Answer, Found
from graph.errors import UNFORESEEN, body_of, described
from graph.jobs.jobs import fingerprint, name_of
from graph.making import (
    GeneratedClip,
    answer_of,
    charged,
    charged_made,
    count,
    file_of,
    generated_clip,
    headers_of,
)
from graph.order import Order
from graph.pipeline import Clip, ClipRequest, Progress
from graph.registry import Voice


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


def order_of(
    request: Request,
    voice: Voice,
    params: GenerationParams,
    output: Output,
    *,
    repeatable: bool = False,
) -> Order:
    """Return the order of one clip, and note its model for what counts it."""
    state = request.state
    state.model = voice.model.name
    clips = [ClipRequest(params)]
    return Order(state.share, state.began, voice, clips, output, repeatable=repeatable)


async def whole_answer(service: Service, order: Order) -> Response:
    """Answer with the file of the only clip, or with all and their codes in JSON.

    What the same request would get again is kept; while it is made, others wait for it as well.
    """
    return _response(*await _kept_or_made(service, order))


async def kept_answer(
    service: Service, model: str, key: str, make: Callable[[], Awaitable[Answer]]
) -> Response:
    """Answer with what is kept by this key, being made, or made now."""
    return _response(*await _looked_up(service, model, key, make))


async def _kept_or_made(service: Service, order: Order) -> tuple[Answer, Found | None]:
    if not (order.repeatable and service.limits.cache_bytes):
        return await charged_made(service, order), None
    key, model = await asyncio.to_thread(order.key), order.voice.model.name
    return await _looked_up(service, model, key, lambda: charged_made(service, order))


async def _looked_up(
    service: Service, model: str, key: str, make: Callable[[], Awaitable[Answer]]
) -> tuple[Answer, Found]:
    answer, found = await service.cache.get(key, make)
    service.metrics.looked_up(model, found)
    return answer, found


async def once_answer(
    service: Service, order: Order, key: str, body: str, files: Mapping[str, bytes]
) -> Response:
    """Answer likewise, but make it once for all requests with this `Idempotency-Key`."""

    async def make() -> Answer:
        answer, _ = await _kept_or_made(service, order)
        return answer

    name = name_of("once", order.share.name, key)
    asked = await asyncio.to_thread(fingerprint, body, files)
    answer, again = await service.once.get(name, asked, make)
    headers = dict(answer.headers)
    if again:
        headers["idempotent-replayed"] = "true"
        headers.pop("server-timing", None)  # it tells of the first request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


def _response(answer: Answer, found: Found | None) -> Response:
    headers = answer.headers | ({"x-cache": found} if found else {})
    if found:
        get_current_span().set_attribute("audiocraft.cache", found)
    if found in ("hit", "joined"):
        headers.pop("server-timing", None)  # it tells of another request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


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
    parts = charged_parts(charged(service, order), file_parts(service, order, wanted, []))
    headers |= order.name_to_save()
    return await Streamed.begin(parts, media_type=media_type, headers=headers)


async def event_answer(
    request: Request, service: Service, order: Order, *, stream: bool
) -> Response:
    """Answer with events: `progress`, or `audio` as it is made; at last `done` or `error`."""
    events = _all_events(service, order, stream)
    headers = order.all_headers() if stream else headers_of(service, order)
    return await streamed_events(
        service, order, events, headers, lambda error: event("error", body_of(request, error))
    )


async def streamed_events(
    service: Service,
    order: Order,
    events: AsyncGenerator[bytes, None],
    headers: dict[str, str],
    tell: Callable[[Exception], bytes],
) -> Response:
    """Answer with events once the order is let in; what fails then is another, by `tell`."""
    return await charged_events(charged(service, order), events, headers, tell)


async def charged_events(
    charge: AbstractAsyncContextManager[None],
    events: AsyncGenerator[bytes, None],
    headers: dict[str, str],
    tell: Callable[[Exception], bytes],
) -> Response:
    """Answer likewise, of whatever is charged.

    While none comes for long, a comment does, and what fails after that has no status any more.
    """
    made = merged([charged_parts(charge, events)], KEEP_ALIVE, KEEP_ALIVE_S)
    headers["cache-control"] = "no-store"
    parts = told_errors(made, tell)
    return await Streamed.begin(parts, media_type="text/event-stream", headers=headers)


async def charged_parts(
    charge: AbstractAsyncContextManager[None], parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield parts, once they are let in, and hold their charge until they end."""
    async with aclosing(parts), charge:
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
    yield event("done", answer_of(order, [made[number] for number in sorted(made)]))


async def _growing_clip(
    service: Service, order: Order, number: int, made: dict[int, GeneratedClip]
) -> AsyncGenerator[bytes, None]:
    wanted, codes = order.clips[number], list[Codes]()
    async with aclosing(file_parts(service, order, wanted, codes)) as parts:
        async for data in parts:
            yield _audio_event(number, data)
    joined = Codes.join([one.array() for one in codes])
    seconds = order.samples(wanted) / order.voice.codec.sample_rate
    made[number] = generated_clip(order, number, joined, seconds, None)


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
    count(service, order, answer)
    file = await asyncio.to_thread(file_of, service, order, number, answer)
    yield await asyncio.to_thread(_audio_event, number, file.data)
    made[number] = generated_clip(order, number, answer.codes, file.seconds, None)


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
