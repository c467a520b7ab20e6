"""Requests that are open at Ray Serve's proxy: only so many at once."""

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.proxy import proxy_limit
from api.proxy.proxy_limit import (
    LEAST_OPEN,
    LONG_S,
    VARIABLE,
    AdaptiveLimit,
    ProxyLimit,
    read_fixed_limit,
)


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
    crowd = ProxyLimit(slow, fixed=2)
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
    crowd = ProxyLimit(slow, fixed=1)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await ask(crowd, "/fails")
    assert (await ask(crowd))[0]["status"] == 200


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_how_many_must_be_a_number(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=f"{VARIABLE} is {value!r}; it must be a whole number"):
        read_fixed_limit()


def test_how_many_may_be_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "64")
    assert read_fixed_limit() == 64
    monkeypatch.delenv(VARIABLE)
    assert read_fixed_limit() is None


def test_the_limit_grows_only_while_it_is_reached_and_probes_are_fast():
    limit = AdaptiveLimit()
    limit.add_probe(0.01, LEAST_OPEN - 1)
    assert limit.value == LEAST_OPEN
    for _ in range(40):
        limit.add_probe(0.01, int(limit.value))
    assert limit.value > 1000, "a server of that size needs no tuning"
    limit.add_probe(2 * LONG_S, 200)
    assert limit.value < 200
    for _ in range(40):
        limit.add_probe(2 * LONG_S, int(limit.value))
    assert limit.value == LEAST_OPEN


class Busy(Slow):
    """An application whose probes take longer than allowed once many requests are open."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.probes = most, list[int]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/healthz":
            await super().__call__(scope, receive, send)
            return
        assert (await receive())["body"] == b""
        self.probes.append(self.begun)
        if self.begun > self.most:
            await asyncio.Future[None]()


async def test_a_probe_finds_how_many_may_be_open(monkeypatch: pytest.MonkeyPatch):
    """The limit rises above the first one, and no further than probes are fast."""
    monkeypatch.setattr(proxy_limit, "PROBE_EVERY_S", 0.001)
    monkeypatch.setattr(proxy_limit, "PROBE_S", 0.02)
    monkeypatch.setattr(proxy_limit, "LONG_S", 0.01)
    busy = Busy(most=2 * LEAST_OPEN)
    crowd = ProxyLimit(busy, fixed=None)
    statuses, tasks = [], set[asyncio.Task[None]]()

    async def send_one() -> None:
        statuses.append((await ask(crowd))[0]["status"])

    try:
        while len(busy.probes) < 60 or len(tasks) < 3 * LEAST_OPEN:
            task = asyncio.create_task(send_one())
            tasks.add(task)
            await asyncio.sleep(0.001)
    finally:
        busy.go_on.set()
        await asyncio.gather(*tasks)
    assert LEAST_OPEN < busy.begun < 3 * LEAST_OPEN
    assert 429 in statuses
