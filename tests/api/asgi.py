"""Requests as an HTTP server passes them on, message by message."""

import asyncio
import json
from collections.abc import Callable, Mapping

from fastapi import FastAPI
from starlette.types import Message, Receive


async def asgi(
    app: FastAPI,
    path: str,
    headers: Mapping[str, str],
    receive: Receive,
    sent: Callable[[Message], None] = lambda message: None,
) -> list[Message]:
    """Post to `path`; return the answer's messages, each of which `sent` is told at once."""
    answer: list[Message] = []

    async def send(message: Message) -> None:
        answer.append(message)
        sent(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": raw}
    await app(scope, receive, send)
    return answer


def receive_json(body: object) -> Receive:
    """Return what receives one message with a body; the client then stays without a word."""
    messages = iter([{"type": "http.request", "body": json.dumps(body).encode()}])

    async def receive() -> Message:
        if message := next(messages, None):
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return receive
