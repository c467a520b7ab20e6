"""What runs in Ray Serve's proxy: no more requests are open at once than the front can carry.

Before the ingress refuses a request it has been called, has read and checked the body, and has
asked the ledger: half the work of a clip. Where far more come than can be served, refusing takes
the cores from what was let in. Refused here, a request costs next to nothing.
"""

import os

from ray.util.metrics import Counter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.errors import ApiError, answer, request_id

VARIABLE, DEFAULT = "AUDIOCRAFT_MOST_OPEN_REQUESTS", "1000"
RETRY_AFTER_S = 1
MESSAGE = f"too many requests are open at this server; try again in {RETRY_AFTER_S} s"


def most_open() -> int:
    """Return how many requests may be open at a proxy. Raises ValueError."""
    value = os.environ.get(VARIABLE, DEFAULT)
    if not value.isdecimal() or not int(value):
        raise ValueError(f"{VARIABLE} is {value!r}; it must be a whole number above 0")
    return int(value)


class Crowd:
    """ASGI middleware: answers 429 to what would be one more; what only reads is not counted."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most, self._open = app, most, 0
        self._refused = Counter("audiocraft_crowded_out", "Requests refused at the proxy.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, where there is room."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._open >= self._most:
            await self._refuse(Request(scope), receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1

    async def _refuse(self, request: Request, receive: Receive, send: Send) -> None:
        self._refused.inc()
        headers = {"retry-after": str(RETRY_AFTER_S), "x-request-id": request_id(request)}
        error = ApiError(429, "overloaded", MESSAGE, headers=headers)
        await answer(request, error)(request.scope, receive, send)
