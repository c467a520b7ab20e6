"""Answers every request: with a whole answer, a growing file, or events."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Receive, Scope, Send

from api.errors import build_error_body, describe_error
from api.respond.clips import ClipsRendering
from api.respond.rendering import Rendering
from api.respond.stored_file import send_bytes
from api.schemas.base import RequestModel
from api.service import Service
from graph.cache import Answer, Found
from graph.calls import merge_streams
from graph.errors import INTERNAL_ERROR, ApiError
from graph.jobs.jobs import build_name, hash_request
from graph.tasks.task import AudioPart, Clip, Progress, Task

EVENTS = "text/event-stream"
KEEP_ALIVE = format_sse_event(comment="keep-alive")
"""A comment that clients ignore; it stops proxies from closing a silent connection (WHATWG HTML,
9.2.7)."""
KEEP_ALIVE_S = 15.0
LARGE_BYTES = 16_000_000
"""An answer above this size, and too large for the cache, is sent while it is made."""
KEY, MAX_KEY_CHARS = "idempotency-key", 255


@dataclass(frozen=True)
class Built:
    """The task and the rendering that were built from a request."""

    task: Task
    rendering: Rendering
    body: str
    """The request's body as JSON."""
    files: Mapping[str, bytes]
    """The uploads; requests with one `Idempotency-Key` must have equal bodies and uploads."""
    resolved: RequestModel | None = None
    """The body with values from the configuration; None for routes without a type of job."""


def read_idempotency_key(request: Request) -> str | None:
    """Return the request's `Idempotency-Key`, or None. Raises ApiError 400."""
    key = request.headers.get(KEY)
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
        message = f"{KEY}: {len(key)} characters; allowed: 1 to {MAX_KEY_CHARS}"
        raise ApiError(400, "invalid_header", message, KEY)
    return key


def refuse_key(request: Request) -> None:
    """Refuse an `Idempotency-Key` on a request that is answered in parts. Raises ApiError 422."""
    if read_idempotency_key(request):
        message = f"{KEY}: an answer that is sent in parts cannot be repeated; leave it out"
        raise ApiError(422, "cannot_stream", message, KEY)


def accepts_events(request: Request) -> bool:
    """Return whether the request asks for server-sent events."""
    return EVENTS in request.headers.get("accept", "")


async def respond(
    request: Request, service: Service, built: Built, *, growing: bool = False, events: bool = False
) -> Response:
    """Answer a request with events, with a growing file, or with a whole answer.

    `growing` is for routes whose clients read a file while it is generated. `events` is for routes
    that have another way than `Accept` to ask for events. A request with an `Idempotency-Key` gets
    a whole answer. Raises ApiError.
    """
    request.state.model = built.task.model
    events = events or accepts_events(request)
    if events:
        refuse_key(request)
    with ExitStack() as stack:
        held = service.executor.held_bytes.hold_bytes(built.rendering.count_bytes())
        stack.enter_context(held)
        if events:
            response = await _respond_with_events(request, service, built.rendering)
        elif key := read_idempotency_key(request):
            response = await _respond_once(request, service, built, key, stack)
        elif growing:
            assert isinstance(built.rendering, ClipsRendering)
            response = await _respond_growing(service, built.rendering)
        else:
            response = await _respond_whole(service, built.rendering)
        return HoldingResponse(response, stack.pop_all())


async def _respond_whole(service: Service, rendering: Rendering) -> Response:
    executor, task = service.executor, rendering.task
    if rendering.count_answer_bytes() <= max(service.limits.cache_bytes, LARGE_BYTES):
        return _build_response(
            *await executor.get_answer(task, rendering.build_key, rendering.render)
        )
    answer = await executor.make_parts(task, rendering.render)
    parts = _read_parts(answer.parts)
    return await StreamedResponse.begin_stream(
        parts, media_type=answer.media_type, headers=answer.headers
    )


async def _read_parts(parts: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    async for part in iterate_in_threadpool(parts):
        yield part


async def _respond_once(
    request: Request, service: Service, built: Built, key: str, held: ExitStack
) -> Response:
    """Send the one answer that is built for all requests with this key, from where it is stored.

    `held` counts the request's bytes; none are held while the answer is sent.
    """
    task, rendering = built.task, built.rendering
    name = build_name("once", task.share.name, key)
    body = f"{request.scope['route'].path}\n{built.body}"
    asked = await asyncio.to_thread(hash_request, body, built.files)
    fits_cache = rendering.count_answer_bytes() <= service.limits.cache_bytes
    answer, replayed = await service.executor.make_answer_once(
        task, rendering.build_key if fits_cache else None, rendering.render, name, asked, held
    )
    held.close()
    headers = dict(answer.headers)
    if replayed:
        headers["idempotent-replayed"] = "true"
        headers.pop("server-timing", None)  # it belongs to the first request
    files = service.jobs.files
    size = await files.measure_file(name, answer.file)
    read = partial(files.read_parts, name, answer.file)
    return send_bytes(read, 0, size, 200, answer.media_type, headers)


def _build_response(answer: Answer, found: Found | None) -> Response:
    headers = answer.headers | ({"x-cache": found} if found else {})
    if found in ("hit", "joined"):
        headers.pop("server-timing", None)  # it belongs to another request
    return Response(answer.body, media_type=answer.media_type, headers=headers)


async def _respond_growing(service: Service, rendering: ClipsRendering) -> Response:
    """Send the file of the only clip while it is generated, or at once if it is cached."""
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
    """Send server-sent events, and a comment after every KEEP_ALIVE_S seconds of silence."""
    parts = _end_with_error(request, rendering, _stream_parts(service, rendering))
    headers = rendering.headers | {"cache-control": "no-store"}
    return await StreamedResponse.begin_stream(parts, media_type=EVENTS, headers=headers)


async def _stream_parts(service: Service, rendering: Rendering) -> AsyncGenerator[bytes, None]:
    """Yield the parts of all messages; a comment never stands between the parts of one."""
    stream = _stream_messages(service, rendering)
    async with aclosing(merge_streams([stream], (KEEP_ALIVE,), KEEP_ALIVE_S)) as messages:
        async for message in messages:
            async for part in iterate_in_threadpool(message):
                yield part


async def _stream_messages(
    service: Service, rendering: Rendering
) -> AsyncGenerator[Iterable[bytes], None]:
    async with aclosing(service.executor.stream_events(rendering.task)) as events:
        async for event in events:
            if isinstance(event, Progress):
                messages = rendering.build_messages(event)
            else:
                messages = await asyncio.to_thread(rendering.build_messages, event)
            for name, message in messages:
                yield rendering.format_message(name, message)


async def _end_with_error(
    request: Request, rendering: Rendering, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield parts; send an error after the first part as an event, because it has no status."""
    begun = False
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
                begun = True
    except Exception as error:
        if not begun:
            raise
        yield b"".join(rendering.format_message("error", build_error_body(request, error)))
        if describe_error(error).code == INTERNAL_ERROR:
            raise


class StreamedResponse(StreamingResponse):
    """Sends the parts of a generator, and closes the generator when the client leaves.

    The generator is closed during cancellation, so its clean-up must not wait for anything.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], **kwargs: Any) -> None:
        super().__init__(rest, **kwargs)
        self._first, self._rest = first, rest

    @classmethod
    async def begin_stream(
        cls, parts: AsyncGenerator[bytes, None], **kwargs: Any
    ) -> "StreamedResponse":
        """Await the first part, so that an earlier error can still become an error response."""
        return cls(await anext(parts), parts, **kwargs)

    async def stream_response(self, send: Send) -> None:
        """Send all parts."""
        async with aclosing(self._rest):
            self.body_iterator = self._iterate_parts()
            await super().stream_response(send)

    async def _iterate_parts(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for part in self._rest:
            yield part


class HoldingResponse(Response):
    """Sends another response, and ends the count of its bytes when it is sent or has failed."""

    def __init__(self, response: Response, held: ExitStack) -> None:
        self._response, self._held = response, held
        self.background, self.status_code = response.background, response.status_code
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        with self._held:
            await self._response(scope, receive, send)
