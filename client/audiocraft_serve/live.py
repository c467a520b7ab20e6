"""Live sessions: audio that plays on while its prompt changes, over a WebSocket."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypedDict

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from audiocraft_serve.answers import from_json
from audiocraft_serve.errors import (
    ApiError,
    AudiocraftError,
    CutOff,
    NotReachable,
    TimedOut,
    UnexpectedAnswer,
    api_error,
)

NORMAL, OURS = 1000, 4000
"""Codes that connections are closed with: after all was sent; from here on, with HTTP's status."""


class Wanted(TypedDict, total=False):
    """What to hear: a prompt, or the state of a game."""

    prompt: str
    tension: float
    """From 0 to 1."""
    location: str
    """Where its players are, beside `tension`."""


class LiveParameters(Wanted, total=False):
    """What a session starts with."""

    passage: float
    """Seconds that are made at a time: what is wanted holds for whole passages."""
    model: str
    seed: int
    guidance_scale: float
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class Started:
    """What a session's audio is: samples of 16 bits, little-endian, channels interleaved."""

    model: str
    seed: int
    sample_rate: int
    channels: int
    passage: float
    """Seconds."""
    ahead: float
    """Seconds left to play at which the next passage is begun."""
    request_id: str

    def seconds(self, samples: int) -> float:
        """Return how long so many bytes of audio last."""
        return samples / (2 * self.channels * self.sample_rate)


@dataclass(frozen=True)
class Passage:
    """From `start`, in seconds of the session's audio, it follows this prompt."""

    number: int
    start: float
    duration: float
    prompt: str


class LiveSession:
    """A session that has started; iterate over it for audio (bytes), `Passage`s and `ApiError`s.

    What was taken counts as played once the next is asked for: who plays it waits as long as that
    lasts, and who records it need not. An `ApiError` that is given, not raised, has not ended it.
    """

    def __init__(self, connection: ClientConnection, started: Started) -> None:
        self.started = started
        self._connection = connection
        self._taken = 0

    async def say(self, wanted: Wanted) -> None:
        """Say what to hear from the next passage on. Raises CutOff."""
        await _send(self._connection, wanted)

    async def stop(self) -> None:
        """End it; what is made already still comes. Raises CutOff."""
        await _send(self._connection, {"stop": True})

    async def __aiter__(self) -> AsyncIterator[bytes | Passage | ApiError]:
        """Yield what comes, until it was stopped. Raises ApiError, CutOff."""
        failed: ApiError | None = None
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as closed:
                if error := _ended(closed, failed):
                    raise error from closed
                return
            if isinstance(message, bytes):
                yield message
                self._taken += len(message)
                await self._played()
                continue
            told = _read(message)
            if told["type"] == "passage":
                yield from_json(Passage, told)
            elif told["type"] == "error":
                failed = _error(told)
                yield failed

    async def _played(self) -> None:
        """Say how much was taken. One who has stopped need not."""
        seconds = self.started.seconds(self._taken)
        with suppress(ConnectionClosed):  # the next message tells why
            await self._connection.send(json.dumps({"played": seconds}))


@asynccontextmanager
async def live(
    url: str, headers: Mapping[str, str], start: LiveParameters
) -> AsyncIterator[LiveSession]:
    """Start a session; who leaves the block ends it. Raises ApiError, NotReachable."""
    connecting = connect(url, additional_headers=headers, max_size=None)
    try:
        connection = await connecting
    except InvalidStatus as error:
        body = _read(error.response.body or b"null")
        raise api_error(error.response.status_code, body) from error
    except TimeoutError as error:
        raise TimedOut(f"{url} does not answer") from error
    except (OSError, InvalidHandshake) as error:
        raise NotReachable(f"{url} cannot be reached: {error}") from error
    async with connection:
        with suppress(ConnectionClosed):  # what came before it tells why
            await connection.send(json.dumps(start))
        yield LiveSession(connection, await _started(connection))


async def _started(connection: ClientConnection) -> Started:
    """Return what the session starts with. Raises ApiError, with the status that it ends by."""
    failed: ApiError | None = None
    try:
        while (told := _read(await connection.recv())).get("type") == "error":
            failed = _error(told)
    except ConnectionClosed as closed:
        raise _ended(closed, failed) or CutOff("it ended before it started") from closed
    return from_json(Started, told)


async def _send(connection: ClientConnection, message: Mapping[str, Any] | Wanted) -> None:
    try:
        await connection.send(json.dumps(message))
    except ConnectionClosed as closed:
        raise CutOff("the session has ended") from closed


def _read(message: str | bytes | bytearray) -> dict[str, Any]:
    try:
        told = json.loads(message)
    except ValueError as error:
        raise UnexpectedAnswer("what came is no JSON; is it this API's server?") from error
    return told if isinstance(told, dict) else {}


def _error(told: Mapping[str, Any]) -> ApiError:
    return api_error(told.get("status"), dict(told))


def _ended(closed: ConnectionClosed, failed: ApiError | None) -> AudiocraftError | None:
    """Return the error that a connection was closed with."""
    code = closed.rcvd.code if closed.rcvd else None
    if code == NORMAL:
        return None
    if code and code >= OURS:
        told = {"error": failed.to_json()["error"]} if failed else None
        return api_error(code - OURS, told, failed.request_id if failed else None)
    return CutOff(f"the session broke: {closed}")
