"""Answers that are sent while they are made, and end when their reader leaves."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Send

T = TypeVar("T")


class Streamed(StreamingResponse):
    """Sends what a generator yields; closes it when the client leaves, wherever it stands."""

    def __init__(self, parts: AsyncGenerator[bytes, None], **kwargs: Any) -> None:
        super().__init__(parts, **kwargs)
        self._parts = parts

    async def stream_response(self, send: Send) -> None:
        """Send every part."""
        async with aclosing(self._parts):
            await super().stream_response(send)


async def begun(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Await the first part, so that what fails before it can still be an error answer."""
    first = await anext(parts)

    async def all_parts() -> AsyncGenerator[bytes, None]:
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return all_parts()


def event(name: str, data: BaseModel) -> bytes:
    """Return a server-sent event (WHATWG HTML, 9.2)."""
    return f"event: {name}\ndata: {data.model_dump_json(exclude_none=True)}\n\n".encode()


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Yield what comes of any source, as it comes.

    Where one fails, or the reader leaves, all end. What is not yet read waits without bound, so
    only for sources that are bounded themselves.
    """
    arrived: asyncio.Queue[T | None] = asyncio.Queue()

    async def feed(source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source):
            async for item in source:
                arrived.put_nowait(item)

    tasks = [asyncio.ensure_future(feed(source)) for source in sources]
    fed = asyncio.gather(*tasks)
    fed.add_done_callback(lambda _: arrived.put_nowait(None))
    try:
        while (item := await arrived.get()) is not None:
            yield item
        await fed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
