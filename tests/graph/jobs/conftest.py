"""Stores to test with: a SQLite file, and Debian's Redis."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from graph.jobs.redis import RedisStore
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Store
from tests.waiting import free_port

Connect = Callable[[], Awaitable[Store]]


class RedisServer:
    """Debian's redis-server, which keeps what it has written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        self._answers()

    def _answers(self) -> None:
        while True:
            assert self._process.poll() is None, "redis-server ended"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(100) == b"+PONG\r\n":
                        return
            except OSError:
                continue

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if not shutil.which("redis-server"):
        pytest.skip("needs Debian's package redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@asynccontextmanager
async def connecting(make: Callable[[], Store]) -> AsyncIterator[Connect]:
    """Several stores of the same texts, as ingress replicas have them."""
    async with AsyncExitStack() as opened:

        async def connect() -> Store:
            store = make()
            await store.open()
            opened.push_async_callback(store.close)
            return store

        yield connect


@pytest.fixture(params=["sqlite", "redis"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    if request.param == "sqlite":
        async with connecting(lambda: SqliteStore(tmp_path / "jobs" / "jobs.sqlite")) as one:
            yield one
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        async with connecting(lambda: RedisStore(server.url, None)) as one:
            yield one


@pytest.fixture
async def store(connect: Connect) -> Store:
    return await connect()
