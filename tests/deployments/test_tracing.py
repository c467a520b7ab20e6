"""Tests the parents, the ends and the export of the deployments' spans."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode, use_span

from deployments import tracing
from deployments.tracing import (
    CALLER_LEFT,
    add_span,
    begin_span,
    get_trace_argument,
    open_span,
    stop_export,
    trace_calls,
)
from tests.spans import Recorded, collecting


@trace_calls
class Singer:
    """Replaces a deployment."""

    async def sing(self, note: str) -> str:
        with open_span("breathe"):
            await asyncio.sleep(0)
        if note == "h":
            raise KeyError(note)
        return note

    async def wait(self) -> None:
        await asyncio.sleep(60)

    async def song(self, notes: int, fails: bool = False) -> AsyncGenerator[int, None]:
        began = time.perf_counter()
        try:
            for note in range(notes):
                with open_span("breathe"):
                    await asyncio.sleep(0)
                yield note
            if fails:
                raise KeyError
        finally:
            add_span("all", began, time.perf_counter())


@pytest.fixture
def singer(monkeypatch: pytest.MonkeyPatch) -> Singer:
    context = SimpleNamespace(deployment="choir")
    monkeypatch.setattr(tracing.serve, "get_replica_context", lambda: context)
    return Singer()


async def run_request(work: Any) -> Any:
    """Run `work` in a new trace, as the ingress does."""
    root = begin_span("request", SpanKind.SERVER, {})
    try:
        with use_span(root):
            return await work()
    finally:
        root.end()


def list_names(found: list[ReadableSpan]) -> list[str]:
    return [one.name for one in found]


async def test_a_call_is_a_child_of_its_request(singer: Singer, recorded: Recorded):
    assert await run_request(lambda: singer.sing("a", **get_trace_argument())) == "a"
    (call,) = recorded.children(recorded.one("request"))
    assert (call.name, call.kind, call.status.status_code) == (
        "sing choir", SpanKind.SERVER, StatusCode.UNSET,
    )  # fmt: skip
    assert list_names(recorded.children(call)) == ["breathe"]


async def test_a_failed_call_records_its_error(singer: Singer, recorded: Recorded):
    with pytest.raises(KeyError):
        await run_request(lambda: singer.sing("h", **get_trace_argument()))
    call = recorded.one("sing choir")
    assert call.status.status_code == StatusCode.ERROR
    assert call.events[0].attributes["exception.type"] == "KeyError"


async def test_a_cancelled_call_is_marked(singer: Singer, recorded: Recorded):
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await singer.wait(**get_trace_argument())

    await run_request(leave)
    call = recorded.one("wait choir")
    assert call.attributes[CALLER_LEFT] is True
    assert call.status.status_code == StatusCode.UNSET


async def test_a_stream_is_one_span_until_its_end(singer: Singer, recorded: Recorded):
    async def read() -> None:
        async for _ in singer.song(3, **get_trace_argument()):
            assert "song choir" not in recorded.names()

    await run_request(read)
    call = recorded.one("song choir")
    assert list_names(recorded.children(call)) == ["breathe"] * 3 + ["all"]
    assert call.status.status_code == StatusCode.UNSET
    whole = recorded.one("all")
    assert call.start_time <= whole.start_time <= whole.end_time <= call.end_time


async def test_a_cancelled_stream_ends(singer: Singer, recorded: Recorded):
    async def read() -> None:
        async with aclosing(singer.song(3, **get_trace_argument())) as notes:
            await anext(notes)

    await run_request(read)
    call = recorded.one("song choir")
    assert call.attributes[CALLER_LEFT] is True
    assert list_names(recorded.children(call)) == ["breathe", "all"]


async def test_a_failed_stream_records_its_error(singer: Singer, recorded: Recorded):
    async def read() -> None:
        async for _ in singer.song(1, True, **get_trace_argument()):
            pass

    with pytest.raises(KeyError):
        await run_request(read)
    call = recorded.one("song choir")
    assert call.status.status_code == StatusCode.ERROR
    assert list_names(recorded.children(call)) == ["breathe", "all"]


async def test_two_streams_of_one_task_have_separate_spans(singer: Singer, recorded: Recorded):
    """A span that is still current at a `yield` would become the parent of the other stream."""

    async def read() -> None:
        first, second = (
            singer.song(2, **get_trace_argument()),
            singer.song(2, **get_trace_argument()),
        )
        for _ in range(2):
            await anext(first)
            await anext(second)
        await second.aclose()
        await first.aclose()

    await run_request(read)
    calls = recorded.children(recorded.one("request"))
    assert list_names(calls) == ["song choir"] * 2
    assert [len(recorded.children(call)) for call in calls] == [3, 3]


async def test_work_without_a_request_is_not_traced(singer: Singer, recorded: Recorded):
    assert get_trace_argument() == {}
    await singer.sing("a")
    assert [note async for note in singer.song(2)] == [0, 1]
    add_span("idle", 0.0, 1.0)
    assert recorded.all() == []


async def test_an_unsampled_trace_is_unsampled_everywhere(singer: Singer, recorded: Recorded):
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    with use_span(begin_span("request", SpanKind.SERVER, sent)):
        argument = get_trace_argument()
        await singer.sing("a", **argument)
    _, trace, _, flags = argument["carrier"]["traceparent"].split("-")
    assert (trace, flags) == ("0af7651916cd43dd8448eb211c80319c", "00")
    assert recorded.all() == []


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Make the process read its environment again, and delay the export."""
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setattr(tracing, "get_provider", cache(tracing.get_provider.__wrapped__))
    yield monkeypatch
    stop_export()


def test_no_span_is_recorded_without_a_collector(fresh: pytest.MonkeyPatch):
    assert not begin_span("request", SpanKind.SERVER, {}).is_recording()
    fresh.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:1")
    fresh.setenv("OTEL_TRACES_EXPORTER", "none")
    tracing.get_provider.cache_clear()
    assert not begin_span("request", SpanKind.SERVER, {}).is_recording()


def test_stopping_sends_the_remaining_spans(fresh: pytest.MonkeyPatch):
    with collecting() as collector:
        fresh.setenv(tracing.ENDPOINTS[0], collector.endpoint)
        fresh.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        begin_span("request", SpanKind.SERVER, {}).end()
        assert collector.spans == []
        stop_export()
        (sent,) = collector.spans
    assert sent.name == "request"
    assert sent.resource["service.name"] == tracing.NAME
    assert sent.resource["deployment.environment.name"] == "test"


def test_the_environment_sets_the_service_and_the_sampler(fresh: pytest.MonkeyPatch):
    fresh.setenv(tracing.ENDPOINTS[1], "http://127.0.0.1:1")
    fresh.setenv("OTEL_SERVICE_NAME", "mine")
    fresh.setenv("OTEL_TRACES_SAMPLER", "always_off")
    made = tracing.get_provider()
    assert isinstance(made, TracerProvider)
    assert made.resource.attributes["service.name"] == "mine"
    assert not begin_span("request", SpanKind.SERVER, {}).is_recording()


@pytest.mark.slow
def test_a_dead_collector_delays_nothing(fresh: pytest.MonkeyPatch):
    fresh.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:1")
    fresh.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    fresh.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    fresh.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    begun = time.perf_counter()
    for _ in range(2000):  # more than the queue holds
        begin_span("request", SpanKind.SERVER, {}).end()
    assert time.perf_counter() - begun < 5
    stop_export()
