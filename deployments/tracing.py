"""OpenTelemetry: spans of this process, and how a trace goes along with calls of deployments.

Off, at the cost of a look at the current span, until the standard environment names a collector.
Requests to the ingress and jobs begin traces: what runs beside them (beats, probes) has none.
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
"""True of a call whose caller did not wait for its end."""

Class = TypeVar("Class", bound=type)
Carrier = Mapping[str, str]
"""The headers of W3C Trace Context, or of what OTEL_PROPAGATORS names."""


@cache
def get_provider() -> TracerProvider | None:
    """Return what exports this process's spans; None where the environment names no collector."""
    wanted = any(os.environ.get(name) for name in ENDPOINTS)
    if not wanted or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    made = TracerProvider(resource=_build_resource())
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def _build_resource() -> Resource:
    """Return who makes the spans; what the environment says of it goes first."""
    ours: dict[str, AttributeValue] = {"service.name": NAME}
    try:
        replica = serve.get_replica_context()
        ours["service.instance.id"] = replica.replica_id.unique_id
        ours["audiocraft.deployment"] = replica.deployment
    except RayServeException:  # not in a replica
        pass
    return Resource.create(ours).merge(OTELResourceDetector().detect())


@cache
def _get_tracer(of: TracerProvider) -> Tracer:
    return of.get_tracer(NAME)


def stop_export() -> None:
    """Send what is left, and export no more; waits OTEL_EXPORTER_OTLP_TIMEOUT at most."""
    if get_provider.cache_info().currsize and (started := get_provider()):
        started.shutdown()


def begin_span(name: str, kind: SpanKind, carrier: Carrier, attributes: Any = None) -> Span:
    """Begin a span in the trace that came along, or in a new one; whoever begins it ends it."""
    if not (of := get_provider()):
        return INVALID_SPAN
    parent = propagate.extract(carrier, Context())
    return _get_tracer(of).start_span(name, parent, kind, attributes)


def open_span(name: str, attributes: Any = None) -> AbstractContextManager[Span]:
    """Make what is done in it a part of the current span; of nothing, where nothing is traced.

    Not around a `yield`: a generator's context is its reader's.
    """
    of = get_provider()
    if not of or not get_current_span().is_recording():
        return nullcontext(INVALID_SPAN)
    return _get_tracer(of).start_as_current_span(name, attributes=attributes)


def add_span(name: str, began: float, ended: float) -> None:
    """Add what lay between two times of `time.perf_counter` as a part of the current span."""
    of = get_provider()
    if of and get_current_span().is_recording():
        zero = time.time_ns() - time.perf_counter_ns()
        made = _get_tracer(of).start_span(name, start_time=zero + int(began * 1e9))
        made.end(zero + int(ended * 1e9))


def get_trace_argument() -> dict[str, Carrier]:
    """Return the keyword argument by which a call of a deployment continues this trace."""
    if not get_current_span().get_span_context().is_valid:
        return {}
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {"carrier": carrier}


def trace_calls(deployment: Class) -> Class:
    """Let every public asynchronous method of a deployment take what `get_trace_argument` gives.

    A call that brings a trace becomes a span of it, `method deployment`, around the whole stream
    where the method is a generator. Spans that are left are sent when the replica ends.
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
                with use_span(begun):  # step by step: between steps the context is the reader's
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
