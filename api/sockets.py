"""WebSockets on which errors have the one shape, and end with a code that says their status."""

from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from api.errors import build_error_body, describe_error
from api.schemas.live import LiveError

PROTOCOL = "audiocraft.live"
"""The subprotocol that is chosen where a client names some, as browsers do beside a key."""
NORMAL, OF_STATUS = 1000, 4000
"""Close codes (RFC 6455, 7.4): the usual end; and what a status of HTTP is added to."""


class Socket:
    """One connection, by its server's end."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    async def accept_client(self) -> None:
        """Let the client in."""
        offered = self.websocket.scope.get("subprotocols", ())
        await self.websocket.accept(PROTOCOL if PROTOCOL in offered else None)

    async def send_message(self, message: BaseModel | bytes) -> None:
        """Send bytes, or JSON."""
        if isinstance(message, bytes):
            await self.websocket.send_bytes(message)
        else:
            await self.websocket.send_text(message.model_dump_json())

    async def send_error(self, error: Exception) -> None:
        """Say what went wrong."""
        body = build_error_body(self.websocket, error)
        await self.send_message(LiveError(error=body.error, request_id=body.request_id))

    async def close_normally(self) -> None:
        """End it, as was wanted."""
        with suppress(WebSocketDisconnect):
            await self.websocket.close(NORMAL)

    async def close_with_error(self, error: Exception) -> None:
        """Say what went wrong, and end it."""
        with suppress(WebSocketDisconnect):  # who has left is told nothing
            await self.send_error(error)
            await self.websocket.close(OF_STATUS + describe_error(error).status)
