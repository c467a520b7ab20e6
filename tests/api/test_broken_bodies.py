"""Bodies that stop, or end with their client: refused, and no longer held."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from ray.exceptions import TaskCancelledError
from starlette.types import Message

from api.ingress import create_app
from api.settings import UserConfig
from tests.api.asgi import asgi
from tests.api.conftest import Server
from tests.api.test_http import assert_error

SIZE, TIMES = 5_000_000, 4
"""Bytes of a body: far more than what other threads of the process may take meanwhile."""
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
FILE = b'--x\r\ncontent-disposition: form-data; name="%b"; filename="a"\r\n\r\n'
BEGINNINGS = {
    "/generate/music": (JSON, b'"'),
    "/v1/generations": (FORM, FILE % b"continue_from"),
    "/v1/codec/encode": (FORM, FILE % b"audio_file"),
}


HEADERS = {"content-type": JSON}


@pytest.mark.parametrize("sent", [b"", b'{"text": '])
async def test_a_body_that_stops_is_refused(server: Server, sent: bytes):
    server.service.limits = UserConfig(max_body_s=0.05)

    async def stopped():
        yield sent
        await asyncio.Event().wait()

    response = await server.http.post("/generate/music", content=stopped(), headers=HEADERS)
    assert_error(response, 408, "body_too_late", None, "stopped before its end")
    assert response.headers["connection"] == "close"


async def test_a_body_that_comes_gives_itself_more_time(server: Server):
    server.service.limits = UserConfig(max_body_s=0.3)

    async def slow():
        yield b'{"text": "calm piano"'
        for _ in range(4):
            await asyncio.sleep(0.1)
            yield b" " * 5000
        yield b"}"

    response = await server.http.post("/generate/music", content=slow(), headers=HEADERS)
    assert response.status_code == 200


async def test_what_came_before_does_not_let_a_body_stop(server: Server):
    """However much it was."""
    server.service.limits = UserConfig(max_body_s=0.05)

    async def stopped():
        yield b" " * 900_000
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        response = await server.http.post("/generate/music", content=stopped(), headers=HEADERS)
    assert response.status_code == 408


@pytest.fixture
def counting() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("path", BEGINNINGS)
@pytest.mark.parametrize("end", ["leaves", "is cancelled", "stops", "goes on for too long"])
async def test_nothing_of_it_stays(
    server: Server, counting: None, caplog: pytest.LogCaptureFixture, path: str, end: str
):
    """It is free without a collection of garbage; and no error of ours.

    A thread that wrote a part to disk holds it for a moment longer than the answer takes.
    """
    server.service.limits = UserConfig(
        max_body_s=0.01 if end == "stops" else 60,
        max_body_bytes=2 * SIZE,
        max_upload_bytes=2 * SIZE,
    )
    app = create_app(server.service)
    kind, beginning = BEGINNINGS[path]

    async def broken() -> None:
        parts = 0

        async def receive() -> Message:
            nonlocal parts
            parts += 1
            if parts == 1 or end == "goes on for too long":
                body = (beginning if parts == 1 else b"") + bytes(SIZE)
                return {"type": "http.request", "body": body, "more_body": True}
            if end == "leaves":
                return {"type": "http.disconnect"}
            if end == "is cancelled":
                raise TaskCancelledError
            return await asyncio.Future[Message]()

        (start, *_) = await asgi(app, path, {"content-type": kind}, receive)
        wanted = {"stops": 408, "goes on for too long": 413}
        assert start["status"] == wanted.get(end, 400)

    await broken()  # what the first one leaves is kept for the others
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(TIMES):
        await broken()
    async with asyncio.timeout(20):
        while tracemalloc.get_traced_memory()[0] - before >= SIZE / 2:
            await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
