"""Tests that the ingress counts the bytes that it will hold, and sends large answers in parts."""

import asyncio
import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.respond import embedded_files, responses
from api.respond.embedded_files import EmbeddedFiles
from api.settings import UserConfig
from graph.errors import ApiError
from graph.held_bytes import HeldBytes
from tests.api.asgi import asgi, receive_json
from tests.api.conftest import Served
from tests.waiting import until_async

BODY = {"prompt": "calm piano", "duration": 2, "n": 3, "seed": 1}


def test_bytes_are_held_until_the_block_ends():
    counted = HeldBytes(lambda: 100)
    with pytest.raises(ApiError) as alone, counted.hold_bytes(101):
        pass
    assert (alone.value.status, alone.value.code) == (413, "answer_too_large")
    with counted.hold_bytes(60):
        with pytest.raises(ApiError) as refused, counted.hold_bytes(60):
            pass
        assert (refused.value.status, refused.value.code) == (429, "overloaded")
        assert int(refused.value.headers["retry-after"]) > 0
        with suppress(ValueError), counted.hold_bytes(40):
            raise ValueError
        assert counted.held == 60
    assert counted.held == 0


async def test_a_request_that_is_too_large_is_refused_before_it_costs(served: Served):
    served.service.limits = UserConfig(max_held_bytes=1_000_000)
    large = BODY | {"duration": 10, "sample_format": "f32", "sample_rate": 96000}
    refused = await served.http.post("/v1/generations", json=large)
    assert refused.status_code == 413, refused.text
    assert refused.json()["error"]["code"] == "answer_too_large"
    assert not served.music.seen
    assert (await served.http.post("/v1/generations", json=BODY)).status_code == 200


async def test_requests_that_hold_all_bytes_refuse_others(served: Served):
    counted = served.service.executor.held_bytes
    served.service.limits = UserConfig(max_held_bytes=800_000, cache_bytes=0)
    served.music.held = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(served.http.post("/v1/generations", json=BODY))
        await until_async(lambda: held(served))
        assert counted.held > 400_000
        refused = await served.http.post("/v1/generations", json=BODY)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert "retry-after" in refused.headers
        served.music.held.set()
    assert first.result().status_code == 200
    assert counted.held == 0
    assert (await served.http.post("/v1/generations", json=BODY)).status_code == 200


async def held(served: Served) -> bool:
    return served.service.executor.held_bytes.held > 0


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_that_leaves_frees_its_bytes(served: Served, accept: str):
    served.music.held = asyncio.Event()
    body = json.dumps(BODY).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, object]:
        if message := next(messages, None):
            return message
        await asyncio.Event().wait()
        raise AssertionError

    headers = {"content-type": "application/json", "accept": accept}
    request = asyncio.create_task(asgi(served.app, "/v1/generations", headers, receive))
    await until_async(lambda: held(served))
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert served.service.executor.held_bytes.held == 0


async def test_large_json_is_sent_while_it_is_made(served: Served, monkeypatch: pytest.MonkeyPatch):
    whole = await served.http.post("/v1/generations", json=BODY)
    monkeypatch.setattr(responses, "LARGE_BYTES", 0)
    monkeypatch.setattr(embedded_files, "BASE64_BYTES", 3000)
    monkeypatch.setattr(embedded_files, "PIECE_BYTES", 3000)
    served.service.limits = UserConfig(cache_bytes=0)
    sent: list[bytes] = []

    def note(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    headers = {"content-type": "application/json"}
    await asgi(served.app, "/v1/generations", headers, receive_json(BODY), note)
    assert b"".join(sent) == whole.content
    assert max(map(len, sent)) <= 3000 + 4000
    assert served.service.executor.held_bytes.held == 0


async def test_answers_that_fit_the_cache_are_kept_as_before(served: Served):
    first = await served.http.post("/v1/generations", json=BODY)
    again = await served.http.post("/v1/generations", json=BODY)
    assert again.headers["x-cache"] == "hit"
    assert again.content == first.content
    assert int(again.headers["content-length"]) == len(first.content)


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 5))
def test_base64_in_pieces_is_that_of_the_whole(parts: list[bytes], size: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_files, "BASE64_BYTES", 3 * size)
        files = EmbeddedFiles()
        text = f"{{{files.add_file(lambda: parts)} and {files.add_file(lambda: [b'x'])}}}"
        written = b"".join(files.write_text(text))
    assert written == b"{%s and eA==}" % base64.b64encode(b"".join(parts))
