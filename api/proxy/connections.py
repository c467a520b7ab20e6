"""The connections of Ray Serve's proxy: bounded in time, and in the size of a request's head.

uvicorn bounds only the wait between two requests. Without these bounds, a client that sends
nothing, never ends the head of a request, or does not read the answer holds a connection for ever.
A WebSocket may be silent, because uvicorn's pings find clients that are gone, but its client must
read what is sent.
"""

import asyncio
import sys
from collections.abc import Callable

from starlette.middleware import Middleware
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets import auto as websockets
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.proxy.proxy_limit import ProxyLimit, read_fixed_limit
from api.proxy.request_head import RequestHead, build_refusal
from graph.errors import ApiError

MOST_BYTES = 1_000_000
"""The longest message of a WebSocket; clients send only short texts."""
PARSED_BYTES = 4096
"""The bytes that the parser gets at once, so that a long head is refused early."""
MAX_DISCARDED_BYTES = 1_000_000
"""The bytes that a refused client can still send before it reads the error."""
MALFORMED = "this is not an HTTP/1.1 request; check its head and the framing of its body"


class Deadline:
    """A timer that calls `act` after `seconds` unless it is cancelled."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._act = loop, seconds, act
        self._timer: asyncio.TimerHandle | None = None

    def start_timer(self) -> None:
        """Start the timer, unless it is already running."""
        self._timer = self._timer or self._loop.call_later(self._seconds, self._act)

    def cancel_timer(self) -> None:
        """Cancel the timer."""
        if self._timer:
            self._timer.cancel()
        self._timer = None


class Bounded(HttpToolsProtocol):
    """uvicorn's connection, with limits on the time and the size of requests.

    The keep-alive timeout limits the time until a head is complete, from the connection or from
    the first byte of the head. It also limits the time in which a client reads no answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the head."""
        super().connection_made(transport)
        self._request_head = RequestHead()
        self._refusal: ApiError | None = None
        self._discarded_bytes = 0
        self._head, self._unread = (
            Deadline(self.loop, self.timeout_keep_alive, transport.abort) for _ in range(2)
        )
        self._head.start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse bytes; cancel the timer if they end a head or belong to the body of a request."""
        if self._refusal:
            self._discard_bytes(data)
            return
        for start in range(0, len(data), PARSED_BYTES):
            self._parse_bytes(data[start : start + PARSED_BYTES])
            if self._refusal or self.transport.get_protocol() is not self:
                break
        if self.transport.get_protocol() is not self:
            self._head.cancel_timer()  # the head was that of a WebSocket
        elif self._refusal or self.cycle is None or self.cycle.response_complete:
            self._head.start_timer()
        else:
            self._head.cancel_timer()

    def _parse_bytes(self, data: bytes) -> None:
        """Pass bytes to the parser, whose callbacks report the ends of parts of the request."""
        self._part_bytes = len(data)
        self._request_head.unparsed_bytes += len(data)
        super().data_received(data)
        if not self._refusal:
            try:
                self._request_head.check_unparsed()
            except ApiError as error:
                self._refuse_request(error)

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a request's head."""
        super().on_message_begin()
        self._request_head = RequestHead(unparsed_bytes=self._part_bytes)

    def on_url(self, url: bytes) -> None:
        """Count a part of the target."""
        self._request_head.add_target(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer after the body."""
        self._request_head.add_header(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Reset the count of unparsed bytes, and begin to answer."""
        self._forget_parsed()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the count of unparsed bytes, and pass on a part of the body."""
        self._forget_parsed()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the count of unparsed bytes, and end the request."""
        self._forget_parsed()
        super().on_message_complete()

    def _forget_parsed(self) -> None:
        """Reset the count of unparsed bytes; the part that is parsed may hold another request."""
        self._request_head.unparsed_bytes = self._part_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request; uvicorn calls this while it handles the parser's error."""
        error = sys.exception()
        cause = error.__context__ if error else None
        self._refuse_request(
            cause if isinstance(cause, ApiError) else ApiError(400, "invalid_http", MALFORMED)
        )

    def _refuse_request(self, error: ApiError) -> None:
        """Answer with an error and ignore all further bytes.

        If an answer has begun, close the connection: the error would look like a part of it.
        """
        self._refusal = error
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and (self.cycle.response_started or self.pipeline):
            self.transport.abort()
            return
        if answering:
            self.cycle.disconnected = True  # uvicorn drops what the application still sends
            self.cycle.message_event.set()
        self.transport.write(build_refusal(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:  # TLS
            self.transport.close()

    def _discard_bytes(self, data: bytes) -> None:
        """Ignore bytes of a refused client; closing at once could discard the answer."""
        self._discarded_bytes += len(data)
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.pause_reading()  # until the timer for the head ends

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._unread.start_timer()

    def resume_writing(self) -> None:
        """Cancel the timer, because the client has read."""
        super().resume_writing()
        self._unread.cancel_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection when the client has read the answer or the timer ends."""
        super().timeout_keep_alive_handler()
        self._unread.start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        self._head.cancel_timer()
        self._unread.cancel_timer()
        super().connection_lost(exc)


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which closes if its client reads nothing for the keep-alive timeout."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the limit of messages and prepare the timer."""
        super().connection_made(transport)
        self.conn.max_message_size = MOST_BYTES
        timeout = self.config.timeout_keep_alive
        self._unread = Deadline(self.loop, timeout, self.transport.abort)

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._unread.start_timer()

    def resume_writing(self) -> None:
        """Cancel the timer, because the client has read."""
        super().resume_writing()
        self._unread.cancel_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        self._unread.cancel_timer()
        super().connection_lost(exc)


def install() -> list[Middleware]:
    """Replace uvicorn's connections; the proxy calls this before it opens its port.

    Raises ValueError if a variable of the environment is invalid.
    """
    auto.AutoHTTPProtocol = Bounded
    websockets.AutoWebSocketsProtocol = BoundedWebSocket
    return [Middleware(ProxyLimit, fixed=read_fixed_limit())]
