"""Answers that are sent while they are made, and end when their reader leaves."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Send

T = TypeVar("T")
KEEP_ALIVE, KEEP_ALIVE_S = b": keep-alive\n\n", 15.0
"""A comment that a reader of events ignores, for proxies that cut what is silent for long
(WHATWG HTML, 9.2.7)."""


class Streamed(StreamingResponse):
    """Sends what a generator yields; closes it when the client leaves, wherever it stands.

    It is closed while its task is being cancelled, so its own clean-up must not wait for anything.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], **kwargs: Any) -> None:
        super().__init__(rest, **kwargs)
        self._first, self._rest = first, rest

    @classmethod
    async def begin(cls, parts: AsyncGenerator[bytes, None], **kwargs: Any) -> "Streamed":
        """Await the first part, so that what fails before it can still be an error answer."""
        return cls(await anext(parts), parts, **kwargs)

    async def stream_response(self, send: Send) -> None:
        """Send every part."""
        async with aclosing(self._rest):
            self.body_iterator = self._all_parts()
            await super().stream_response(send)

    async def _all_parts(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for part in self._rest:
            yield part


def event(name: str, data: BaseModel) -> bytes:
    """Return a server-sent event (WHATWG HTML, 9.2)."""
    return f"event: {name}\ndata: {data.model_dump_json(exclude_none=True)}\n\n".encode()


async def merged(
    sources: Sequence[AsyncGenerator[T, None]],
    meanwhile: T | None = None,
    every_s: float | None = None,
) -> AsyncGenerator[T, None]:
    """Yield what comes of any source, as it comes; and `meanwhile` where nothing came for so long.

    Where one fails, or the reader leaves, all end. What is not yet read waits without bound, so
    only for sources that are bounded themselves.
    """
    arrived: asyncio.Queue[T | None] = asyncio.Queue()

    async def feed(source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source):
            async for item in source:
                arrived.put_nowait(item)

    tasks = [asyncio.ensure_future(feed(source)) for source in sources]
    left = len(tasks)

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if not left or task.cancelled() or task.exception():
            arrived.put_nowait(None)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        while True:
            item = meanwhile
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    item = await arrived.get()
            if item is None:
                break
            yield item
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
