"""Sends messages and errors over a WebSocket; the close code contains the HTTP status."""

from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from api.errors import build_error_body, describe_error
from api.schemas.live import LiveError

PROTOCOL = "audiocraft.live"
"""The subprotocol that the server accepts if a client offers it, as browsers do with a key."""
NORMAL, OF_STATUS = 1000, 4000
"""Close codes (RFC 6455, 7.4): the normal end, and the base that an HTTP status is added to."""


class Socket:
    """The server's side of one WebSocket connection."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    async def accept_client(self) -> None:
        """Accept the connection."""
        offered = self.websocket.scope.get("subprotocols", ())
        await self.websocket.accept(PROTOCOL if PROTOCOL in offered else None)

    async def send_message(self, message: BaseModel | bytes) -> None:
        """Send bytes, or a model as JSON."""
        if isinstance(message, bytes):
            await self.websocket.send_bytes(message)
        else:
            await self.websocket.send_text(message.model_dump_json())

    async def send_error(self, error: Exception) -> None:
        """Send an error as a message."""
        body = build_error_body(self.websocket, error)
        await self.send_message(LiveError(error=body.error, request_id=body.request_id))

    async def close_normally(self) -> None:
        """Close the connection with code 1000."""
        with suppress(WebSocketDisconnect):
            await self.websocket.close(NORMAL)

    async def close_with_error(self, error: Exception) -> None:
        """Send an error, and close the connection with its status."""
        with suppress(WebSocketDisconnect):  # the client has already left
            await self.send_error(error)
            await self.websocket.close(OF_STATUS + describe_error(error).status)
