"""Counts, logs and traces every answer by its route."""

import logging
import time
from urllib.parse import quote

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, use_span
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import get_request_id
from deployments import tracing
from graph.metrics import Metrics

CUT = "cut"
METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
logger = logging.getLogger("ray.serve")


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
        scope.setdefault("state", {})["began"] = began

        async def send_and_note(message: Message) -> None:
            nonlocal status, whole
            kind = message["type"]
            if kind == "http.response.start":
                status = str(message["status"])
            elif kind == "websocket.close":
                status, whole = str(message["code"]), True
            elif kind == "http.response.body" and not message.get("more_body"):
                whole = True
            await send(message)

        async def receive_and_note() -> Message:
            nonlocal status, whole
            message = await receive()
            if message["type"] == "websocket.disconnect" and not whole:
                status, whole = str(message["code"]), True
            return message

        span = _begin_span(scope)
        try:
            with use_span(span):
                await self._app(scope, receive_and_note, send_and_note)
        except Exception:  # every error is counted here and raised again
            if not status:  # the error handler answers with 500
                status, whole = "500", True
            raise
        finally:
            # All unknown paths share the name none, so that they do not each become a time series.
            path = getattr(scope.get("route"), "path", "none")
            model = scope["state"].get("model", "none")
            outcome = status if whole else CUT
            seconds = time.perf_counter() - began
            self._metrics.count_request(path, model, outcome, seconds)
            _log_answer(scope, outcome, seconds, span)
            _end_span(span, scope, status, outcome)


def _get_method(scope: Scope) -> str:
    """Return the method of a request; a WebSocket begins with a GET."""
    method: str = scope.get("method", "GET")
    return method


def _log_answer(scope: Scope, outcome: str, seconds: float, span: Span) -> None:
    """Log an answer. Serve adds the request id, the deployment and the replica."""
    method, path = _get_method(scope), quote(scope["path"])  # a path can contain a line break
    share = scope["state"].get("share")
    facts = {
        "method": method,
        "path": path,
        "outcome": outcome,
        "model": scope["state"].get("model"),
        "seconds": round(seconds, 4),
        "key": share.name if share else None,
    }
    if span.is_recording():
        facts["trace_id"] = f"{span.get_span_context().trace_id:032x}"
    logger.info("%s %s %s %.1fms", method, path, outcome, 1000 * seconds, extra=facts)


def _begin_span(scope: Scope) -> Span:
    """Begin a span with OpenTelemetry's HTTP attributes, in the client's trace if it has one."""
    if not tracing.get_provider():
        return INVALID_SPAN
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    method = _get_method(scope) if _get_method(scope) in METHODS else "_OTHER"
    attributes = {
        HTTP_REQUEST_METHOD: method,
        URL_PATH: scope["path"],
        URL_SCHEME: scope["scheme"],
        USER_AGENT_ORIGINAL: headers.get("user-agent", ""),
        "audiocraft.request_id": get_request_id(HTTPConnection(scope)),
    }
    return tracing.begin_span(method, SpanKind.SERVER, headers, attributes)


def _end_span(span: Span, scope: Scope, status: str, outcome: str) -> None:
    if not span.is_recording():
        return
    if route := getattr(scope.get("route"), "path", None):
        method = _get_method(scope) if _get_method(scope) in METHODS else "HTTP"
        span.update_name(f"{method} {route}")
        span.set_attribute(HTTP_ROUTE, route)
    if status and scope["type"] == "http":
        span.set_attribute(HTTP_RESPONSE_STATUS_CODE, int(status))
    if model := scope["state"].get("model"):
        span.set_attribute("gen_ai.request.model", model)
    if outcome == CUT or outcome[-3:] >= "500":  # the code of a WebSocket is 4000 plus a status
        span.set_attribute(ERROR_TYPE, outcome)
        span.set_status(StatusCode.ERROR)
    span.end()
