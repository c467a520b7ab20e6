"""From a task to an HTTP response: whole, growing, or events. Every route answers through here."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Send

from api.errors import build_error_body, describe_error
from api.respond.clips import ClipsRendering
from api.respond.rendering import Rendering
from api.schemas.base import RequestModel
from api.service import Service
from graph.cache import Answer, Found
from graph.calls import merge_streams
from graph.errors import INTERNAL_ERROR, ApiError
from graph.jobs.jobs import build_name, hash_request
from graph.tasks.task import AudioPart, Clip, Progress, Task

EVENTS = "text/event-stream"
KEEP_ALIVE = format_sse_event(comment="keep-alive")
"""A comment, which readers of events ignore, for proxies that close silent connections (WHATWG
HTML, 9.2.7)."""
KEEP_ALIVE_S = 15.0
KEY, MAX_KEY_CHARS = "idempotency-key", 255


@dataclass(frozen=True)
class Built:
    """What a request's body and files have become."""

    task: Task
    rendering: Rendering
    body: str
    """The body as JSON, and"""
    files: Mapping[str, bytes]
    """the uploads beside it: what an `Idempotency-Key` stands for."""
    resolved: RequestModel | None = None
    """The body with what the configuration has given it; None of routes that are no job's."""


def read_idempotency_key(request: Request) -> str | None:
    """Return the key under which the request may be sent again. Raises ApiError 400."""
    key = request.headers.get(KEY)
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        message = f"{KEY}: {len(key)} characters; allowed: 1 to {MAX_KEY_CHARS}"
        raise ApiError(400, "invalid_header", message, KEY)
    return key


def refuse_key(request: Request) -> None:
    """Refuse an `Idempotency-Key` on a request that is answered in parts. Raises ApiError 422."""
    if read_idempotency_key(request):
        message = f"{KEY}: only what is answered whole can be asked for again; leave it out"
        raise ApiError(422, "cannot_stream", message, KEY)


def accepts_events(request: Request) -> bool:
    """Return whether the request asks for server-sent events."""
    return EVENTS in request.headers.get("accept", "")


async def respond(
    request: Request, service: Service, built: Built, *, growing: bool = False, events: bool = False
) -> Response:
    """Answer a request: with events, with a file while it grows, or whole.

    `growing` is for routes whose clients read a file while it is made; `events` for routes that
    have another way than `Accept` to ask for them. A request with an `Idempotency-Key` is answered
    whole. Raises ApiError.
    """
    request.state.model = built.task.model
    events = events or accepts_events(request)
    if events:
        refuse_key(request)
        return await _respond_with_events(request, service, built.rendering)
    if key := read_idempotency_key(request):
        return await _respond_once(request, service, built, key)
    if growing:
        assert isinstance(built.rendering, ClipsRendering)
        return await _respond_growing(service, built.rendering)
    return await _respond_whole(service, built.rendering)


async def _respond_whole(service: Service, rendering: Rendering) -> Response:
    answer = await service.executor.get_answer(
        rendering.task, rendering.build_key, rendering.render
    )
    return _build_response(*answer)


async def _respond_once(request: Request, service: Service, built: Built, key: str) -> Response:
    """Answer with what is made once for all requests with this key."""
    task, rendering = built.task, built.rendering
    name = build_name("once", task.share.name, key)
    body = f"{request.scope['route'].path}\n{built.body}"
    asked = await asyncio.to_thread(hash_request, body, built.files)
    answer, replayed = await service.executor.make_answer_once(
        task, rendering.build_key, rendering.render, name, asked
    )
    headers = dict(answer.headers)
    if replayed:
        headers["idempotent-replayed"] = "true"
        headers.pop("server-timing", None)  # it is of the first request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


def _build_response(answer: Answer, found: Found | None) -> Response:
    headers = answer.headers | ({"x-cache": found} if found else {})
    if found in ("hit", "joined"):
        headers.pop("server-timing", None)  # it is of another request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


async def _respond_growing(service: Service, rendering: ClipsRendering) -> Response:
    """Answer with the file of the only clip while it is made, or at once where it is kept."""
    if kept := await service.executor.find_kept(rendering.task, rendering.build_key):
        return _build_response(kept, "hit")
    parts = _stream_file(service, rendering)
    headers = rendering.file_headers
    return await StreamedResponse.begin_stream(
        parts, media_type=rendering.media_type, headers=headers
    )


async def _stream_file(service: Service, rendering: ClipsRendering) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.executor.stream_events(rendering.task)) as events:
        async for event in events:
            if isinstance(event, AudioPart | Clip):
                data = await asyncio.to_thread(rendering.build_bytes, event)
                if data:
                    yield data


async def _respond_with_events(
    request: Request, service: Service, rendering: Rendering
) -> Response:
    """Answer with server-sent events; while none comes for long, with a comment."""
    messages = merge_streams([_stream_messages(service, rendering)], KEEP_ALIVE, KEEP_ALIVE_S)
    parts = _end_with_error(request, rendering, messages)
    headers = rendering.headers | {"cache-control": "no-store"}
    return await StreamedResponse.begin_stream(parts, media_type=EVENTS, headers=headers)


async def _stream_messages(service: Service, rendering: Rendering) -> AsyncGenerator[bytes, None]:
    async with aclosing(service.executor.stream_events(rendering.task)) as events:
        async for event in events:
            if isinstance(event, Progress):
                messages = rendering.build_messages(event)
            else:
                messages = await asyncio.to_thread(rendering.build_messages, event)
            for name, message in messages:
                yield await asyncio.to_thread(rendering.format_message, name, message)


async def _end_with_error(
    request: Request, rendering: Rendering, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield parts; an error after the first of them has no status any more, and is an event."""
    begun = False
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
                begun = True
    except Exception as error:
        if not begun:
            raise
        yield rendering.format_message("error", build_error_body(request, error))
        if describe_error(error).code == INTERNAL_ERROR:
            raise


class StreamedResponse(StreamingResponse):
    """Sends what a generator yields; closes it when the client leaves, wherever it stands.

    It is closed while its task is being cancelled, so its own clean-up must not wait for anything.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], **kwargs: Any) -> None:
        super().__init__(rest, **kwargs)
        self._first, self._rest = first, rest

    @classmethod
    async def begin_stream(
        cls, parts: AsyncGenerator[bytes, None], **kwargs: Any
    ) -> "StreamedResponse":
        """Await the first part, so that an error before it is still an error response."""
        return cls(await anext(parts), parts, **kwargs)

    async def stream_response(self, send: Send) -> None:
        """Send every part."""
        async with aclosing(self._rest):
            self.body_iterator = self._iterate_parts()
            await super().stream_response(send)

    async def _iterate_parts(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for part in self._rest:
            yield part
