"""uvicorn's connections, as they are in Ray Serve's proxy: bounded where nothing moves."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import auto
from uvicorn.protocols.websockets import auto as websockets_auto
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.proxy import connections
from api.proxy.proxy_limit import ProxyLimit
from api.proxy.request_head import (
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
)

DISCONNECT = "x-request-disconnect-disabled"
SOON_S, PART, SMALL = 0.3, 100_000, 60_000
HEAD = b"POST /%b HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n"


@dataclass
class Proxy:
    """A server whose `/large` answers with more than any buffer holds, most with the body."""

    ended: list[str] = field(default_factory=list)
    connections: Collection[object] = ()
    port: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        refused = scope["path"] == "/refused"
        body = b""
        while len(body) < 4 and not refused:
            body += (await receive())["body"]
        parts = {"/large": [bytes(PART)] * 20, "/small": [bytes(SMALL)]}.get(scope["path"], [body])
        await send({"type": "http.response.start", "status": 200})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
        self.ended.append(scope["path"])

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what was asked for in `/many` messages, each when a word comes, until it is gone."""
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            for _ in range(20 if scope["path"] == "/many" else 1):
                with suppress(OSError):
                    await send({"type": "websocket.send", "bytes": os.urandom(PART)})
        self.ended.append(scope["path"])

    async def open(
        self, *, read_bytes: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        client = socket.socket()
        if read_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_bytes)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=client, limit=1000)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def proxy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Proxy]:
    """Serve with a keep-alive timeout of `SOON_S`, or of the test's parameter in seconds."""
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    monkeypatch.setattr(
        websockets_auto, "AutoWebSocketsProtocol", websockets_auto.AutoWebSocketsProtocol
    )
    assert [one.cls for one in connections.install()] == [ProxyLimit]
    application = Proxy()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    application.port = listening.getsockname()[1]
    timeout = getattr(request, "param", SOON_S)
    config = uvicorn.Config(
        application, timeout_keep_alive=timeout, lifespan="off", log_config=None
    )  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    application.connections = server.server_state.connections
    serving = asyncio.create_task(server._serve([listening]))
    yield application
    server.should_exit = server.force_exit = True
    await serving


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nhost: te", b"\r\n"])
async def test_who_sends_no_whole_head_is_cut_off(proxy: Proxy, sent: bytes):
    reader, writer = await proxy.open()
    writer.write(sent)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    assert not proxy.ended


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes) -> None:
    """Send a little now and then, until the connection ends."""
    ended = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(10):
        while not ended.done():
            writer.write(drop)
            await asyncio.wait([ended], timeout=SOON_S / 10)


async def test_drops_do_not_keep_a_head_open(proxy: Proxy):
    reader, writer = await proxy.open()
    await drip(reader, writer, b"P")


async def test_nor_do_they_after_an_answer(proxy: Proxy):
    """Of a refused body, which uvicorn would take in for as long as it comes."""
    reader, writer = await proxy.open()
    writer.write(HEAD.replace(b": 4", b": 4000") % b"refused")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    await drip(reader, writer, b"x")


def header(size: int, name: bytes = b"x") -> bytes:
    return name + b": " + b"v" * (size - len(name)) + b"\r\n"


START, END = b"POST /body HTTP/1.1\r\n", b"content-length: 4\r\n\r\n"
LARGEST = b"".join(header(10_907, name) for name in (b"a", b"b", b"c")) + header(10, b"d")
TOO_LARGE = {
    "path": (414, b"POST /" + b"p" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n" + END),
    "query": (414, b"POST /?" + b"q" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n" + END),
    "path without an end": (414, b"POST /" + b"p" * 10_000_000),
    "header": (431, START + header(MAX_HEADER_BYTES + 1) + END),
    "header without an end": (431, START + b"x: " + b"v" * 60_000_000),
    "name without an end": (431, START + b"x" * 10_000_000),
    "sum": (431, START + header(MAX_HEADER_BYTES) * 2 + END),
    "number": (431, START + header(2) * MAX_HEADERS + END),
    "lines without an end": (431, START + header(10) * 1_000_000),
}


async def write(writer: asyncio.StreamWriter, sent: bytes) -> None:
    """Send as a client does that reads nothing before it has sent all, or is cut off."""
    with suppress(ConnectionError):
        for start in range(0, len(sent), PART):
            writer.write(sent[start : start + PART])
            await writer.drain()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    """Read an answer to the end of the connection."""
    async with asyncio.timeout(10):
        head, body = (await reader.read()).split(b"\r\n\r\n")
    found: dict[str, object] = json.loads(body)
    return int(head.split()[1]), found


@pytest.mark.parametrize(("status", "sent"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_a_head_that_is_too_large_is_refused(proxy: Proxy, status: int, sent: bytes):
    reader, writer = await proxy.open()
    sending = asyncio.create_task(write(writer, sent))
    refused, body = await read_answer(reader)
    assert refused == status
    assert body["error"]["code"] == {414: "path_too_long", 431: "headers_too_large"}[status]  # type: ignore[index]
    assert body["request_id"]
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    await until(lambda: not proxy.connections)
    assert not proxy.ended


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        (b"x-request-id: \xff", "invalid_header", "x-request-id"),
        (b"Serve_Multiplexed_Model_Id: \xe9", "invalid_header", "serve-multiplexed-model-id"),
        (b"x-request-timeout-seconds: 0.001", "header_not_allowed", "x-request-timeout-seconds"),
        (b"X-Request-Timeout-Seconds: \xff", "header_not_allowed", "x-request-timeout-seconds"),
        (
            b"X-Request-Disconnect-Disabled: ?1",
            "header_not_allowed",
            "x-request-disconnect-disabled",
        ),
    ],
)
async def test_headers_that_serve_would_read_are_refused(
    proxy: Proxy, sent: bytes, code: str, param: str
):
    """Of an invalid one Serve makes a plain 500, and of the others a time limit."""
    reader, writer = await proxy.open()
    writer.write(START + sent + b"\r\n" + END + b"body")
    status, body = await read_answer(reader)
    assert status == 400
    assert body["error"]["code"] == code  # type: ignore[index]
    assert body["error"]["param"] == param  # type: ignore[index]
    assert not proxy.ended


async def test_other_headers_may_have_any_bytes(proxy: Proxy):
    """Such as the cookies that a browser sends to every server of the machine."""
    reader, writer = await proxy.open()
    writer.write(START + b"x-request-id: \xc3\xa9\r\ncookie: \xff\r\n" + END + b"body")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_head_without_an_end_is_refused_at_its_limit(proxy: Proxy):
    """Within one part of what is parsed at once, which the first part of a head counts in too."""
    reader, writer = await proxy.open()
    most = MAX_HEAD_BYTES + connections.PARSED_BYTES
    begun = START + header(MAX_HEADER_BYTES - 10) + b"x: "
    writer.write(begun + b"v" * (most - len(begun)))
    assert (await read_answer(reader))[0] == 431


@pytest.mark.parametrize("proxy", [60], indirect=True)
@pytest.mark.parametrize("size", [1, 100, 100_000])
async def test_the_largest_head_is_taken(proxy: Proxy, size: int):
    """Whatever the pieces are that it comes in, and a second one on the same connection."""
    request = (START + LARGEST + END + b"body") * 2
    reader, writer = await proxy.open()
    for start in range(0, len(request), size):
        writer.write(request[start : start + size])
        await writer.drain()
    for _ in range(2):
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("begun", "endless"), [(b"0\r\nx: ", b"v" * 10), (b"0\r\n", header(10)), (b"4;", b"x" * 10)]
)
async def test_trailers_and_chunk_extensions_are_bounded(
    proxy: Proxy, begun: bytes, endless: bytes
):
    """What follows a body's chunks, or stands beside them, is no body that a route counts."""
    reader, writer = await proxy.open()
    writer.write(START + b"transfer-encoding: chunked\r\n\r\n2\r\nbo\r\n" + begun)
    sending = asyncio.create_task(write(writer, endless * 1_000_000))
    assert (await read_answer(reader))[0] == 431
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    await until(lambda: not proxy.connections)


async def test_a_refused_client_that_stays_is_cut_off(proxy: Proxy):
    reader, writer = await proxy.open()
    writer.write(START + header(MAX_HEADER_BYTES + 1) + b"y")
    assert (await read_answer(reader))[0] == 431
    await until(lambda: not proxy.connections)


async def test_an_answer_that_has_begun_is_cut_off(proxy: Proxy):
    """What would be written of an error there, its client would take for the answer's rest."""
    reader, writer = await proxy.open(read_bytes=4096)
    writer.write(HEAD % b"large" + b"body")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.write(b"no HTTP at all\r\n\r\n")
    with suppress(ConnectionError):
        assert b"invalid_http" not in await reader.read()
    await until(lambda: not proxy.connections)


async def test_what_is_no_http_is_refused_in_the_same_shape(proxy: Proxy):
    reader, writer = await proxy.open()
    writer.write(b"no HTTP at all\r\n\r\n")
    status, body = await read_answer(reader)
    assert status == 400
    assert body["error"]["code"] == "invalid_http"  # type: ignore[index]


async def test_a_body_may_take_longer(proxy: Proxy):
    """It has a limit of its own, `max_body_s`."""
    reader, writer = await proxy.open()
    writer.write(HEAD % b"body")
    for _ in range(4):
        await asyncio.sleep(SOON_S / 2)
        writer.write(b"x")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert proxy.ended == ["/body"]


async def test_a_client_that_does_not_read_is_cut_off(proxy: Proxy):
    _, writer = await proxy.open(read_bytes=4096)
    writer.write(HEAD % b"large" + b"body")
    await until(lambda: proxy.ended == ["/large"] and not proxy.connections)


async def test_one_that_reads_slowly_is_not(proxy: Proxy):
    reader, writer = await proxy.open(read_bytes=4096)
    writer.write(HEAD % b"large" + b"body")
    began = time.monotonic()
    for _ in range(20):
        await reader.readexactly(PART)
        await asyncio.sleep(SOON_S / 10)
    assert time.monotonic() - began > SOON_S
    assert (await reader.read()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("reads", [False, True])
async def test_the_end_of_an_answer_is_waited_for(proxy: Proxy, reads: bool):
    """It stands in a buffer, too small a rest for uvicorn to mind."""
    reader, writer = await proxy.open(read_bytes=4096)
    writer.write(HEAD % b"small" + b"body")
    await until(lambda: proxy.ended)
    began = time.monotonic()
    if reads:
        await asyncio.sleep(1.2 * SOON_S)
        assert len(await reader.read()) > SMALL
    else:
        await until(lambda: not proxy.connections)
        assert time.monotonic() - began > 1.9 * SOON_S


async def test_a_websocket_may_be_silent(proxy: Proxy):
    async with connect(f"ws://127.0.0.1:{proxy.port}/one") as client:
        for _ in range(2):
            await asyncio.sleep(1.5 * SOON_S)
            await client.send("more")
            assert len(await client.recv()) == PART


async def test_but_its_client_must_read(proxy: Proxy):
    reader, writer = await proxy.open(read_bytes=4096)
    writer.write(
        b"GET /many HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    writer.write(b"\x81\x80\0\0\0\0")  # an empty text
    await until(lambda: proxy.ended == ["/many"] and not proxy.connections)


async def test_a_large_message_ends_a_websocket(proxy: Proxy):
    async with connect(f"ws://127.0.0.1:{proxy.port}/one") as client:
        await client.send("x" * 1_000_001)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
