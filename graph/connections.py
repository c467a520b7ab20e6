"""What runs in Ray Serve's proxy: connections on which nothing moves are closed.

uvicorn bounds only the wait between two requests. Who sends nothing, never ends the head of a
request, or does not read the answer would hold a connection, and what is to be sent, for ever.
A WebSocket may be silent, since uvicorn's pings tell who is gone, but what is sent must be read.
"""

import asyncio
from collections.abc import Callable

from starlette.middleware import Middleware
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets import auto as websockets
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from graph.crowd import Crowd, most_open

MOST_BYTES = 1_000_000
"""Of a WebSocket's message: ours are short texts."""


class Deadline:
    """Something to do unless it is ended in time; begun twice, the first time counts."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._act = loop, seconds, act
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Let the time run."""
        self._timer = self._timer or self._loop.call_later(self._seconds, self._act)

    def end(self) -> None:
        """There is nothing to wait for any more."""
        if self._timer:
            self._timer.cancel()
        self._timer = None


class Bounded(HttpToolsProtocol):
    """uvicorn's connection; ends where its client takes longer than the keep-alive timeout.

    That is for a head, since the connection was made or its first byte came; and, while an answer
    is stuck, for the reading of some of it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._head, self._unread = (
            Deadline(self.loop, self.timeout_keep_alive, transport.abort) for _ in range(2)
        )
        self._head.begin()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless this ends a head or belongs to a body that is wanted."""
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._head.end()  # it was the head of a WebSocket
        elif self.cycle is None or self.cycle.response_complete:
            self._head.begin()
        else:
            self._head.end()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._unread.begin()

    def resume_writing(self) -> None:
        """Take in that it has."""
        super().resume_writing()
        self._unread.end()

    def timeout_keep_alive_handler(self) -> None:
        """End the connection, once the client has read what was sent, or takes too long for it."""
        super().timeout_keep_alive_handler()
        self._unread.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head.end()
        self._unread.end()
        super().connection_lost(exc)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket; ends where its client reads nothing for the keep-alive timeout."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection whose head asked for it."""
        super().connection_made(transport)
        self.conn.max_message_size = MOST_BYTES
        timeout = self.config.timeout_keep_alive
        self._unread = Deadline(self.loop, timeout, self.transport.abort)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._unread.begin()

    def resume_writing(self) -> None:
        """Take in that it has."""
        super().resume_writing()
        self._unread.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._unread.end()
        super().connection_lost(exc)


def install() -> list[Middleware]:
    """Take the place of uvicorn's connections; the proxy calls this before it opens its port.

    Raises ValueError where a variable of the environment is wrong.
    """
    auto.AutoHTTPProtocol = Bounded
    websockets.AutoWebSocketsProtocol = BoundedWebSocket
    return [Middleware(Crowd, most=most_open())]
