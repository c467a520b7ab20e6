"""Counts every answer, by the route that gave it."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.metrics import Metrics


class Observed:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note how its answer ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, whole = time.perf_counter(), "", False
        scope.setdefault("state", {})["began"] = began

        async def noted(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = str(message["status"])
            elif not message.get("more_body"):
                whole = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:  # whatever it is: it is counted here, and goes on to whom it concerns
            if not status:  # whoever catches it answers with 500
                status, whole = "500", True
            raise
        finally:
            # A route that does not exist has no name: else every path would be a series of its own.
            path = getattr(scope.get("route"), "path", "none")
            model = scope["state"].get("model", "none")
            outcome = status if whole else "cut"
            self._metrics.answered(path, model, outcome, time.perf_counter() - began)
