"""Runs live sessions: endless audio over a WebSocket, whose prompt can change at any time."""

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
    build_api_error,
)

NORMAL_CLOSE, ERROR_CLOSE = 1000, 4000
"""WebSocket close codes: the session is complete; the session failed (4000 + HTTP status)."""


class Wanted(TypedDict, total=False):
    """The audio to generate: a prompt, or the state of a game."""

    prompt: str
    tension: float
    """Tension of the game's scene, from 0 to 1."""
    location: str
    """Place of the game's scene, for example `city`; used together with `tension`."""


class LiveParameters(Wanted, total=False):
    """The parameters that a session starts with."""

    passage: float
    """Length of a passage in seconds; a new prompt takes effect with the next passage."""
    model: str
    seed: int
    guidance_scale: float
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True)
class Started:
    """Describes a session's audio: 16-bit little-endian samples, channels interleaved."""

    model: str
    seed: int
    sample_rate: int
    channels: int
    passage: float
    """Length of a passage in seconds."""
    ahead: float
    """The next passage is started when this many seconds are left to play."""
    request_id: str

    def seconds(self, samples: int) -> float:
        """Return the duration in seconds of audio; `samples` is its size in bytes."""
        return samples / (2 * self.channels * self.sample_rate)


@dataclass(frozen=True)
class Passage:
    """A passage of the session's audio that follows one prompt; times are in seconds."""

    number: int
    start: float
    duration: float
    prompt: str


class LiveSession:
    """A session that has started; iterating yields audio (bytes), `Passage`s and `ApiError`s.

    Audio counts as played when the next item is requested. A player therefore waits until the
    audio has been heard; a recorder need not wait. The session goes on after an `ApiError` that is
    yielded, not raised.
    """

    def __init__(self, connection: ClientConnection, started: Started) -> None:
        self.started = started
        self._connection = connection
        self._taken = 0

    async def say(self, wanted: Wanted) -> None:
        """Set the prompt or the game state from the next passage on. Raises CutOff."""
        await _send_message(self._connection, wanted)

    async def stop(self) -> None:
        """End the session; audio that has been generated is still received. Raises CutOff."""
        await _send_message(self._connection, {"stop": True})

    async def __aiter__(self) -> AsyncIterator[bytes | Passage | ApiError]:
        """Yield audio, passages and errors until the session ends. Raises ApiError, CutOff."""
        failed: ApiError | None = None
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as closed:
                if error := _find_close_error(closed, failed):
                    raise error from closed
                return
            if isinstance(message, bytes):
                yield message
                self._taken += len(message)
                await self._report_played()
                continue
            data = _parse_message(message)
            if data["type"] == "passage":
                yield from_json(Passage, data)
            elif data["type"] == "error":
                failed = _build_error(data)
                yield failed

    async def _report_played(self) -> None:
        """Report the seconds of audio that have been played, unless the session has ended."""
        seconds = self.started.seconds(self._taken)
        with suppress(ConnectionClosed):  # the next recv raises the reason
            await self._connection.send(json.dumps({"played": seconds}))


@asynccontextmanager
async def open_session(
    url: str, headers: Mapping[str, str], start: LiveParameters
) -> AsyncIterator[LiveSession]:
    """Start a session, and end it when the block is left. Raises ApiError, NotReachable."""
    connecting = connect(url, additional_headers=headers, max_size=None)
    try:
        connection = await connecting
    except InvalidStatus as error:
        body = _parse_message(error.response.body or b"null")
        raise build_api_error(error.response.status_code, body) from error
    except TimeoutError as error:
        raise TimedOut(f"{url} does not answer") from error
    except (OSError, InvalidHandshake) as error:
        raise NotReachable(f"{url} cannot be reached: {error}") from error
    async with connection:
        with suppress(ConnectionClosed):  # _receive_started raises the reason
            await connection.send(json.dumps(start))
        yield LiveSession(connection, await _receive_started(connection))


async def _receive_started(connection: ClientConnection) -> Started:
    """Wait for the session's first message. Raises ApiError with the session's final status."""
    failed: ApiError | None = None
    try:
        while (data := _parse_message(await connection.recv())).get("type") == "error":
            failed = _build_error(data)
    except ConnectionClosed as closed:
        ended = CutOff("the session ended before it started")
        raise _find_close_error(closed, failed) or ended from closed
    return from_json(Started, data)


async def _send_message(connection: ClientConnection, message: Mapping[str, Any] | Wanted) -> None:
    try:
        await connection.send(json.dumps(message))
    except ConnectionClosed as closed:
        raise CutOff("the session has ended") from closed


def _parse_message(message: str | bytes | bytearray) -> dict[str, Any]:
    try:
        data = json.loads(message)
    except ValueError as error:
        raise UnexpectedAnswer("a message is not JSON; is it this API's server?") from error
    return data if isinstance(data, dict) else {}


def _build_error(data: Mapping[str, Any]) -> ApiError:
    return build_api_error(data.get("status"), dict(data))


def _find_close_error(closed: ConnectionClosed, failed: ApiError | None) -> AudiocraftError | None:
    """Return the error that closed the connection; None if the session ended normally.

    `failed` is the last error message of the session.
    """
    code = closed.rcvd.code if closed.rcvd else None
    if code == NORMAL_CLOSE:
        return None
    if code and code >= ERROR_CLOSE:
        body = {"error": failed.to_json()["error"]} if failed else None
        return build_api_error(code - ERROR_CLOSE, body, failed.request_id if failed else None)
    return CutOff(f"the session broke: {closed}")
