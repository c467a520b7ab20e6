"""The WebSocket /v1/live: continuous audio whose prompt can change (see docs/live.md)."""

import asyncio
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.audio.encoder import PcmSink
from api.errors import get_request_id
from api.keys import find_share
from api.schemas.live import LiveMessage, Passage, Start, Started
from api.service import Service
from api.sockets import Socket
from deployments.settings import TokenModelSettings
from engine.errors import EngineError
from engine.params import Waveform
from graph.errors import ApiError
from graph.live.session import PassageStart, Session

MOST_BAD = 10
"""The number of invalid messages in a row that ends a session."""
EXPECTED = (ApiError, EngineError, RequestValidationError)
Message = TypeVar("Message", bound=BaseModel)
router = APIRouter()


@router.websocket("/v1/live")
async def play_live(websocket: WebSocket) -> None:
    """Play until the client stops or leaves, or the session reaches its limit."""
    service: Service = websocket.app.state.service
    socket = Socket(websocket)
    await socket.accept_client()
    try:
        with service.live.hold_place(websocket.state.share.name, service.limits):
            await _play_within_limit(service, socket)
        await socket.close_normally()
    except WebSocketDisconnect:
        return
    except EXPECTED as error:
        await socket.close_with_error(error)
    except Exception as error:  # the client gets every error, and the log does too
        await socket.close_with_error(error)
        raise


async def _play_within_limit(service: Service, socket: Socket) -> None:
    """Play within the time limit. Raises ApiError, EngineError or WebSocketDisconnect."""
    longest = service.limits.max_live_s
    try:
        async with asyncio.timeout(longest) as bound:
            await _play_session(service, socket)
    except TimeoutError as error:
        if not bound.expired():
            raise
        message = f"a session lasts {longest:g} s at most; start another"
        raise ApiError(408, "session_ended", message) from error


async def _play_session(service: Service, socket: Socket) -> None:
    session = await _start_session(service, socket)
    playing = asyncio.create_task(session.play(partial(_send_part, socket), socket.send_error))
    listening = asyncio.create_task(_read_messages(service, socket, session))
    try:
        done, _ = await asyncio.wait([playing, listening], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (playing, listening):
            task.cancel()
        await asyncio.gather(playing, listening, return_exceptions=True)


async def _send_part(socket: Socket, message: PassageStart | Waveform) -> None:
    """Send the start of a passage as JSON, or audio as 16-bit PCM."""
    if isinstance(message, Waveform):
        write = PcmSink("s16", None).write_samples
        await socket.send_message(await asyncio.to_thread(write, message.array()))
    else:
        await socket.send_message(Passage(**asdict(message)))


async def _start_session(service: Service, socket: Socket) -> Session:
    """Build the session from the first message. Raises ApiError if it cannot be started."""
    limits, state = service.limits, socket.websocket.state
    try:
        async with asyncio.timeout(limits.live_idle_s):
            start = _parse_message(Start, await _receive_message(socket), limits.max_body_bytes)
    except TimeoutError as error:
        message = f"no first message in {limits.live_idle_s:g} s; send a prompt or a tension"
        raise ApiError(408, "idle", message) from error
    model = service.registry.find_model(TokenModelSettings, start.model)
    state.model = model.name
    text = start.choose_text(limits)
    assert text, "a start has a prompt or a tension"
    pair = await service.registry.get_model_with_codec(model)
    params = start.build_params(text, pair)
    codec = pair.codec
    started = Started(
        model=model.name, seed=params.seed, sample_rate=codec.sample_rate, channels=codec.channels,
        passage=params.frames / codec.frame_rate, ahead=limits.live_ahead_s,
        request_id=get_request_id(socket.websocket),
    )  # fmt: skip
    await socket.send_message(started)
    owner = state.share.name
    return Session(
        service.executor, service.pipeline, lambda: service.limits,
        lambda: find_share(owner, service.limits), pair, params,
    )  # fmt: skip


async def _read_messages(service: Service, socket: Socket, session: Session) -> None:
    """Read and apply the client's messages. Raises ApiError after too many invalid messages."""
    bad = 0
    while bad < MOST_BAD:
        message = await _receive_message(socket)
        try:
            said = _parse_message(LiveMessage, message, service.limits.max_body_bytes)
            session.text = said.choose_text(service.limits) or session.text
            bad = 0
        except (ApiError, RequestValidationError) as error:
            await socket.send_error(error)
            bad += 1
            continue
        if said.played is not None:
            session.credit.set_played(said.played)
        if said.stop:
            session.stop()
    raise ApiError(400, "invalid_messages", f"{MOST_BAD} messages in a row could not be used")


async def _receive_message(socket: Socket) -> str | bytes:
    """Return the next message. Raises WebSocketDisconnect if the client has left."""
    message = await socket.websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    text: str | None = message.get("text")
    return message["bytes"] if text is None else text


def _parse_message(kind: type[Message], message: str | bytes, most: int) -> Message:
    """Parse a message. Raises ApiError or RequestValidationError."""
    if len(message) > most:
        raise ApiError(413, "message_too_large", f"a message is above {most} bytes")
    try:
        return kind.model_validate_json(message)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
