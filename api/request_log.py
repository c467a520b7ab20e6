"""Counts and logs every answer by its route, and completes the span that FastAPI began for it."""

import logging
import time
from urllib.parse import quote

from fastapi.telemetry import TelemetryConfig
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, StatusCode, get_current_span
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import get_request_id
from deployments import tracing
from graph.metrics import Metrics

CUT = "cut"
logger = logging.getLogger("ray.serve")


def configure_telemetry() -> TelemetryConfig:
    """Return FastAPI's settings: spans of requests where a collector is named, and nothing else.

    What else it offers follows providers that other libraries may have set for the whole process.
    """
    provider = tracing.get_provider()
    return {
        "tracer_provider": provider, "tracing": provider is not None,
        "operation_spans": False, "metrics": False, "logs": False,
    }  # fmt: skip


class RequestLog:
    """The outermost ASGI middleware, which records every answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application, and record how its answer ended."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began, status, whole = time.perf_counter(), "", False
        state = scope.setdefault("state", {})
        state["began"] = began
        span = get_current_span()
        span.set_attribute("audiocraft.request_id", get_request_id(HTTPConnection(scope)))

        async def send_and_note(message: Message) -> None:
            nonlocal status, whole
            kind = message["type"]
            if kind == "http.response.start":
                status = str(message["status"])
            elif kind == "websocket.close":
                status, whole = str(message["code"]), True
            elif kind == "http.response.body" and not message.get("more_body"):
                whole = True
            if model := state.get("model"):  # before the last message, which ends the span
                span.set_attribute("gen_ai.request.model", model)
            await send(message)

        async def receive_and_note() -> Message:
            nonlocal status, whole
            message = await receive()
            if message["type"] == "websocket.disconnect" and not whole:
                status, whole = str(message["code"]), True
            return message

        try:
            await self._app(scope, receive_and_note, send_and_note)
        except Exception:  # every error is counted here and raised again
            if not status:  # the error handler answers with 500
                status, whole = "500", True
            raise
        finally:
            # All unknown paths share the name none, so that they do not each become a time series.
            path = getattr(scope.get("route"), "path", "none")
            model = state.get("model", "none")
            outcome = status if whole else CUT
            seconds = time.perf_counter() - began
            self._metrics.count_request(path, model, outcome, seconds)
            _log_answer(scope, outcome, seconds, span)
            if scope["type"] == "websocket" and (outcome == CUT or outcome[-3:] >= "500"):
                span.set_attribute(ERROR_TYPE, outcome)  # its code is 4000 plus a status
                span.set_status(StatusCode.ERROR)


def _log_answer(scope: Scope, outcome: str, seconds: float, span: Span) -> None:
    """Log an answer. Serve adds the request id, the deployment and the replica."""
    method = scope.get("method", "GET")  # a WebSocket begins with a GET
    path = quote(scope["path"])  # a path can contain a line break
    share = scope["state"].get("share")
    facts = {
        "method": method,
        "path": path,
        "outcome": outcome,
        "model": scope["state"].get("model"),
        "seconds": round(seconds, 4),
        "key": share.name if share else None,
    }
    if (context := span.get_span_context()).trace_flags.sampled:
        facts["trace_id"] = f"{context.trace_id:032x}"
    logger.info("%s %s %s %.1fms", method, path, outcome, 1000 * seconds, extra=facts)
