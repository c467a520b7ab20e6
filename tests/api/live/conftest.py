"""The application behind a real server, for clients that speak WebSocket."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.api.conftest import Served
from tests.waiting import until_async

Open = Callable[..., AbstractAsyncContextManager["Client"]]


class Client:
    """A session, by its client's end."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.audio = b""
        self.passages: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def hear(self) -> str:
        """Take in one message; return its kind."""
        message = await self.connection.recv()
        if isinstance(message, bytes):
            self.audio += message
            return "audio"
        told = json.loads(message)
        if told["type"] == "started":
            self.started = told
        else:
            (self.passages if told["type"] == "passage" else self.errors).append(told)
        return told["type"]

    async def hear_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self.hear()

    async def start(self, **message: Any) -> None:
        await self.say(**message)
        assert await self.hear() == "started", self.errors

    async def end(self) -> int:
        """Take in the rest; return the code that the connection is closed with."""
        with suppress(ConnectionClosed):
            await self.hear_until(lambda: False)
        assert self.connection.close_code
        return self.connection.close_code


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""

    async def holds() -> bool:
        return bool(condition())

    await until_async(holds)


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """Serve `app`; give the address for WebSockets. All that it began has ended then."""
    open_socket = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([open_socket]))
    yield f"ws://127.0.0.1:{open_socket.getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
async def address(served: Served) -> AsyncIterator[str]:
    before = len(asyncio.all_tasks())
    async with listening(served.app) as found:
        yield found
    await served.service.ledger.close()
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


@pytest.fixture
def session(address: str) -> Open:
    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Client]:
        async with connect(address + "/v1/live", **options) as connection:
            yield Client(connection)

    return opened
