"""What a trace shows of a request to the application."""

import asyncio
import inspect
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import Message, Scope

from api.request_log import configure_telemetry
from deployments.ledger import Ledger
from engine.errors import GenerationFailed
from graph.app import DEPLOYMENTS
from graph.settings import INGRESS
from tests.api.conftest import Served
from tests.spans import Recorded

PATH = "/v1/generations"
NAME = f"POST {PATH}"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"prompt": "a secret wish", "duration": 2, "seed": 7, "cache": False}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_a_span_of_its_clients_trace(
    recorded: Recorded, served: Served, stream: bool
):
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "mine"}
    await served.http.post(PATH, json=BODY | {"stream": stream}, headers=headers)
    whole = recorded.one(NAME)
    assert whole.kind == SpanKind.SERVER
    assert f"{whole.context.trace_id:032x} {whole.parent.span_id:016x}" == f"{TRACE} {SPAN}"
    assert whole.attributes == {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": 200,
        "url.path": PATH,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "server.port": 80,
        "gen_ai.request.model": "music",
        "audiocraft.request_id": "mine",
    }
    assert whole.status.status_code == StatusCode.UNSET
    parts = recorded.children(whole)
    assert len(parts) == len(recorded.all()) - 1
    assert {part.name for part in parts} == {"admission", "encode wav"}
    assert recorded.one("admission").attributes == {
        "audiocraft.row_seconds": 4.0,
        "audiocraft.verdict": "admitted",
    }
    assert all(whole.start_time <= p.start_time <= p.end_time <= whole.end_time for p in parts)
    assert "secret" not in "".join(span.to_json() for span in recorded.all())


@pytest.mark.parametrize("stream", [False, True])
async def test_the_models_are_called_in_the_trace(recorded: Recorded, served: Served, stream: bool):
    await served.http.post(PATH, json=BODY | {"stream": stream})
    context = recorded.one(NAME).context
    ((_, carrier),) = served.music.carried[0].items()
    _, trace, parent, flags = carrier["traceparent"].split("-")
    assert (int(trace, 16), int(parent, 16)) == (context.trace_id, context.span_id)
    assert int(flags, 16) & 1, "not sampled"


async def test_without_a_collector_nothing_goes_along(served: Served):
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    await served.http.post(PATH, json=BODY, headers=headers)
    assert served.music.carried == [{}]


async def test_what_goes_wrong_is_told(recorded: Recorded, served: Served):
    await served.http.post(PATH, json={"prompt": ""})
    await served.http.get("/nowhere/42")
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    await served.http.post(PATH, json=BODY)
    await served.http.post(PATH, json=BODY | {"stream": True})
    served.music.error = KeyError("nobody foresaw it")
    await served.http.post(PATH, json=BODY)
    spans = [span for span in recorded.all() if span.kind == SpanKind.SERVER]
    told = [
        (
            span.name,
            span.attributes.get("http.response.status_code"),
            span.attributes.get("error.type"),
        )
        for span in spans
    ]
    assert told == [
        (NAME, 422, None),
        ("GET", 404, None),
        (NAME, 500, "500"),
        (NAME, 200, "RuntimeError"),
        (NAME, 500, "KeyError"),
    ]
    failed = [span.status.status_code == StatusCode.ERROR for span in spans]
    assert failed == [False, False, True, True, True]


async def test_a_stream_that_is_left_ends_its_span(recorded: Recorded, served: Served):
    asked, first = asyncio.Event(), asyncio.Event()
    body = httpx.Request("POST", "http://localhost", json=BODY | {"duration": 20, "stream": True})

    async def receive() -> Message:
        if not asked.is_set():
            asked.set()
            return {"type": "http.request", "body": body.read()}
        await first.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            first.set()
            await asyncio.sleep(60)

    headers = [(b"content-type", b"application/json")]
    scope: Scope = {
        "type": "http", "method": "POST", "scheme": "http", "path": PATH, "headers": headers,
        "query_string": b"", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await served.app(scope, receive, send)
    whole = recorded.one(NAME)
    assert whole.attributes["error.type"] == "ConnectionError"
    assert whole.status.status_code == StatusCode.ERROR
    assert recorded.children(whole)


async def test_the_cache_says_why_a_request_has_no_parts(recorded: Recorded, served: Served):
    body = BODY | {"cache": True}
    await asyncio.gather(*(served.http.post(PATH, json=body) for _ in range(2)))
    await served.http.post(PATH, json=body)
    found: dict[Any, Any] = {
        span.attributes["audiocraft.cache"]: recorded.children(span)
        for span in recorded.all()
        if span.name == NAME
    }
    assert sorted(found) == ["hit", "joined", "miss"]
    assert [bool(found[how]) for how in ("hit", "joined", "miss")] == [False, False, True]


@pytest.mark.parametrize("name", sorted(set(DEPLOYMENTS) - {INGRESS}))
def test_every_deployment_takes_what_comes_along(name: str):
    deployed = DEPLOYMENTS[name].func_or_class
    methods = [
        method
        for method_name, method in inspect.getmembers(deployed, inspect.isfunction)
        if not method_name.startswith("_")
        and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    ]
    assert methods
    for method in methods:
        own = inspect.signature(method, follow_wrapped=False)
        assert "carrier" in own.parameters, method


def test_a_wrapped_generator_is_still_one():
    """Serve looks before it streams."""
    generate = DEPLOYMENTS["musicgen"].func_or_class.generate
    assert inspect.isasyncgenfunction(generate)
    assert inspect.iscoroutinefunction(Ledger.func_or_class.admit)


def test_nothing_is_recorded_where_no_collector_is_named():
    settings = configure_telemetry()
    assert not any(settings[name] for name in ("tracing", "metrics", "logs", "operation_spans"))
