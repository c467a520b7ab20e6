"""Requests that are open at Ray Serve's proxy: only so many at once."""

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.proxy.proxy_limit import VARIABLE, ProxyLimit, read_max_open


class Slow:
    """An application that answers once it is told."""

    def __init__(self) -> None:
        self.begun, self.go_on = 0, asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        await self.go_on.wait()
        if scope["path"] == "/fails":
            raise ConnectionError
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def ask(app: ProxyLimit, path: str = "/", method: str = "POST") -> tuple[Message, bytes]:
    """Return the beginning of the answer, and its body."""
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.Future[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"x-request-id", b"mine")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await app(scope, receive, send)
    return sent[0], b"".join(message.get("body", b"") for message in sent[1:])


async def test_one_more_is_refused_until_another_has_ended():
    slow = Slow()
    crowd = ProxyLimit(slow, max_open=2)
    async with asyncio.TaskGroup() as group:
        within = [group.create_task(ask(crowd)) for _ in range(2)]
        reads = group.create_task(ask(crowd, method="GET"))
        while slow.begun < 3:
            await asyncio.sleep(0)
        start, body = await ask(crowd)
        slow.go_on.set()
    assert [one.result()[0]["status"] for one in (*within, reads)] == [200] * 3
    assert start["status"] == 429
    headers = dict(start["headers"])
    assert (headers[b"retry-after"], headers[b"x-request-id"]) == (b"1", b"mine")
    told = json.loads(body)
    assert (told["error"]["code"], told["request_id"]) == ("overloaded", "mine")
    assert (await ask(crowd))[0]["status"] == 200


async def test_who_fails_makes_room():
    slow = Slow()
    slow.go_on.set()
    crowd = ProxyLimit(slow, max_open=1)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await ask(crowd, "/fails")
    assert (await ask(crowd))[0]["status"] == 200


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_how_many_must_be_a_number(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=f"{VARIABLE} is {value!r}; it must be a whole number"):
        read_max_open()


def test_how_many_may_be_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "64")
    assert read_max_open() == 64
    monkeypatch.delenv(VARIABLE)
    assert read_max_open() == 1000
