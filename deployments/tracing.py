"""Creates OpenTelemetry spans, and passes traces along with calls of deployments.

Tracing is off until the standard environment variables name a collector. Requests to the ingress
and jobs begin traces; background work such as renewals and probes is not traced.
"""

import os
import time
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, wraps
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any, TypeVar

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.util.types import AttributeValue
from ray import serve
from ray.serve.exceptions import RayServeException

NAME = "audiocraft-serve"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CALLER_LEFT = "audiocraft.left"
"""The span attribute of a call whose caller did not wait for its end."""

Class = TypeVar("Class", bound=type)
Carrier = Mapping[str, str]
"""The headers of W3C Trace Context, or of the format that OTEL_PROPAGATORS names."""


@cache
def get_provider() -> TracerProvider | None:
    """Return the provider that exports spans; None if the environment names no collector."""
    has_collector = any(os.environ.get(name) for name in ENDPOINTS)
    if not has_collector or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(resource=_build_resource())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _build_resource() -> Resource:
    """Return the attributes of this process; those of the environment take precedence."""
    ours: dict[str, AttributeValue] = {"service.name": NAME}
    try:
        replica = serve.get_replica_context()
        ours["service.instance.id"] = replica.replica_id.unique_id
        ours["audiocraft.deployment"] = replica.deployment
    except RayServeException:  # not in a replica
        pass
    return Resource.create(ours).merge(OTELResourceDetector().detect())


@cache
def _get_tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer(NAME)


def stop_export() -> None:
    """Send the remaining spans and stop the export, within OTEL_EXPORTER_OTLP_TIMEOUT seconds."""
    if get_provider.cache_info().currsize and (started := get_provider()):
        started.shutdown()


def begin_span(name: str, kind: SpanKind, carrier: Carrier, attributes: Any = None) -> Span:
    """Begin a span in the caller's trace, or in a new trace; the function's caller must end it."""
    if not (provider := get_provider()):
        return INVALID_SPAN
    parent = propagate.extract(carrier, Context())
    return _get_tracer(provider).start_span(name, parent, kind, attributes)


def open_span(name: str, attributes: Any = None) -> AbstractContextManager[Span]:
    """Open a child of the current span for the block; do nothing if there is no trace.

    The block must not contain a `yield`, since a generator runs in its reader's context.
    """
    provider = get_provider()
    if not provider or not get_current_span().is_recording():
        return nullcontext(INVALID_SPAN)
    return _get_tracer(provider).start_as_current_span(name, attributes=attributes)


def add_span(name: str, began: float, ended: float) -> None:
    """Add a child of the current span with two times of `time.perf_counter`, in seconds."""
    provider = get_provider()
    if provider and get_current_span().is_recording():
        zero = time.time_ns() - time.perf_counter_ns()
        child = _get_tracer(provider).start_span(name, start_time=zero + int(began * 1e9))
        child.end(zero + int(ended * 1e9))


def get_trace_argument() -> dict[str, Carrier]:
    """Return the keyword argument with which a call of a deployment continues this trace."""
    if not get_current_span().get_span_context().is_valid:
        return {}
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {"carrier": carrier}


def trace_calls(deployment: Class) -> Class:
    """Let every public asynchronous method of a deployment take the result of `get_trace_argument`.

    A call with a trace becomes its span `method deployment`; the span of a generator ends with its
    stream. The remaining spans are sent when the replica stops.
    """
    for name, method in list(vars(deployment).items()):
        if not name.startswith("_") and isasyncgenfunction(method):
            setattr(deployment, name, _traced_stream(method))
        elif not name.startswith("_") and iscoroutinefunction(method):
            setattr(deployment, name, _traced_call(method))
    deployment.__del__ = lambda _self: stop_export()  # type: ignore[attr-defined]  # Serve calls it
    return deployment


def _begin_call(name: str, carrier: Carrier | None) -> Span:
    if carrier is None:
        return INVALID_SPAN
    return begin_span(f"{name} {serve.get_replica_context().deployment}", SpanKind.SERVER, carrier)


def _traced_call(
    method: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @wraps(method)
    async def call(self: Any, *args: Any, carrier: Carrier | None = None) -> Any:
        begun = _begin_call(method.__name__, carrier)
        try:
            with use_span(begun):
                return await method(self, *args)
        except CancelledError:
            begun.set_attribute(CALLER_LEFT, True)
            raise
        finally:
            begun.end()

    return call


def _traced_stream(
    method: Callable[..., AsyncGenerator[Any, None]],
) -> Callable[..., AsyncGenerator[Any, None]]:
    ended = object()

    @wraps(method)
    async def stream(
        self: Any, *args: Any, carrier: Carrier | None = None
    ) -> AsyncGenerator[Any, None]:
        begun = _begin_call(method.__name__, carrier)
        answers = method(self, *args)
        try:
            while True:
                with use_span(begun):  # per step, since the reader owns the context between
                    answer = await anext(answers, ended)
                if answer is ended:
                    break
                yield answer
        except (CancelledError, GeneratorExit):
            begun.set_attribute(CALLER_LEFT, True)
            raise
        finally:
            with use_span(begun):
                await answers.aclose()
            begun.end()

    return stream
