"""A limit on the requests that are open at once, in Ray Serve's proxy.

The ingress refuses a request only after it has read and checked the body and asked the ledger,
which is half the work of a clip. Under heavy overload, refusing requests there would take the cores
from admitted requests. A request refused here costs almost nothing.
"""

import os

from ray.util.metrics import Counter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import build_error_response, get_request_id
from graph.errors import ApiError

VARIABLE, DEFAULT = "AUDIOCRAFT_MOST_OPEN_REQUESTS", "1000"
RETRY_AFTER_S = 1
MESSAGE = f"too many requests are open at this server; try again in {RETRY_AFTER_S} s"


def read_max_open() -> int:
    """Return how many requests may be open at a proxy. Raises ValueError."""
    value = os.environ.get(VARIABLE, DEFAULT)
    if not value.isdecimal() or not int(value):
        raise ValueError(f"{VARIABLE} is {value!r}; it must be a whole number above 0")
    return int(value)


class ProxyLimit:
    """ASGI middleware that answers 429 to a POST above the limit; it counts only POST requests."""

    def __init__(self, app: ASGIApp, max_open: int) -> None:
        self._app, self._max_open, self._open = app, max_open, 0
        self._refused = Counter("audiocraft_crowded_out", "Requests refused at the proxy.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application if the limit allows."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._open >= self._max_open:
            await self._refuse_request(Request(scope), receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1

    async def _refuse_request(self, request: Request, receive: Receive, send: Send) -> None:
        self._refused.inc()
        headers = {"retry-after": str(RETRY_AFTER_S), "x-request-id": get_request_id(request)}
        error = ApiError(429, "overloaded", MESSAGE, headers=headers)
        await build_error_response(request, error)(request.scope, receive, send)
