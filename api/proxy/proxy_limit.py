"""A limit on the requests that are open at once, in Ray Serve's proxy.

The ingress refuses a request only after it has read and checked the body and asked the ledger,
which is half the work of a clip. Under heavy overload, refusing requests there would take the cores
from admitted requests. A request refused here costs almost nothing.

The limit needs no tuning. While many requests are open, the middleware asks the ingress for
`/healthz` and measures the answer's time: no model is needed for it, so it is the time of proxy and
ingress alone. While that is short the limit grows, and when it is long the limit falls.
"""

import asyncio
import contextlib
import os
import time

from ray.util.metrics import Counter, Gauge
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import build_error_response, get_request_id
from graph.errors import ApiError

VARIABLE = "AUDIOCRAFT_MOST_OPEN_REQUESTS"
LEAST_OPEN, MOST_OPEN = 64, 10_000
"""The bounds of the limit. At the lower one it begins."""
PROBE_EVERY_S, PROBE_S = 0.25, 5.0
"""The time between two probes, and the longest time of one."""
LONG_S = 0.5
"""A probe that takes longer means that proxy and ingress have too much to do."""
GROWTH, FALL = 1.1, 0.8
RETRY_AFTER_S = 1
MESSAGE = f"too many requests are open at this server; try again in {RETRY_AFTER_S} s"


def read_fixed_limit() -> int | None:
    """Return how many requests may be open, or None to adapt the limit. Raises ValueError."""
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    if not value.isdecimal() or not int(value):
        raise ValueError(f"{VARIABLE} is {value!r}; it must be a whole number above 0")
    return int(value)


class AdaptiveLimit:
    """A limit that follows the time of probes."""

    def __init__(self) -> None:
        self.value = float(LEAST_OPEN)

    def add_probe(self, seconds: float, most_open: int) -> None:
        """Adapt to a probe, during which at most `most_open` requests were open."""
        if seconds > LONG_S:
            self.value = max(LEAST_OPEN, FALL * min(self.value, most_open))
        elif most_open >= int(self.value):
            self.value = min(MOST_OPEN, GROWTH * self.value)


class ProxyLimit:
    """ASGI middleware that answers 429 to a POST above the limit; it counts only POST requests."""

    def __init__(self, app: ASGIApp, fixed: int | None) -> None:
        self._app, self._fixed, self._open, self._most_open = app, fixed, 0, 0
        self._adaptive = AdaptiveLimit()
        self._probing: asyncio.Task[None] | None = None
        self._refused = Counter("audiocraft_crowded_out", "Requests refused at the proxy.")
        self._limit = Gauge("audiocraft_open_limit", "Requests that may be open at the proxy.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application if the limit allows."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._open >= (self._fixed or int(self._adaptive.value)):
            self._most_open = max(self._most_open, self._open)
            await self._refuse_request(Request(scope), receive, send)
            return
        self._open += 1
        self._most_open = max(self._most_open, self._open)
        if self._fixed is None and self._open >= LEAST_OPEN and self._probing is None:
            self._probing = asyncio.create_task(self._adapt_limit(_build_probe(scope)))
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1

    async def _adapt_limit(self, probe: Scope) -> None:
        """Probe until few requests are open; the last of many starts it again."""
        try:
            while self._open >= LEAST_OPEN:
                self._most_open = self._open
                begun = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_S):
                        await self._app(dict(probe), _build_receive(), _discard_message)
                self._adaptive.add_probe(time.monotonic() - begun, self._most_open)
                self._limit.set(int(self._adaptive.value))
                await asyncio.sleep(PROBE_EVERY_S)
        finally:
            self._probing = None

    async def _refuse_request(self, request: Request, receive: Receive, send: Send) -> None:
        self._refused.inc()
        headers = {"retry-after": str(RETRY_AFTER_S), "x-request-id": get_request_id(request)}
        error = ApiError(429, "overloaded", MESSAGE, headers=headers)
        await build_error_response(request, error)(request.scope, receive, send)


def _build_probe(scope: Scope) -> Scope:
    """Return the scope of a request for `/healthz` on the connection of another request."""
    target = {"method": "GET", "path": "/healthz", "raw_path": b"/healthz", "query_string": b""}
    return {**scope, **target, "headers": [(b"host", b"localhost")], "state": {}}


def _build_receive() -> Receive:
    """Return what receives an empty body, and then nothing: the client of a probe never leaves."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(messages, None) or await asyncio.Future[Message]()

    return receive


async def _discard_message(message: Message) -> None:
    pass
