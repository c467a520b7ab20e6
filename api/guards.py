"""Guards before the routes: known keys, bodies of the wanted type and size, no steering headers."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response, WebSocket
from fastapi.routing import APIRoute
from ray.exceptions import TaskCancelledError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import build_error_response
from api.keys import authenticate
from api.service import Service
from api.sockets import Socket
from graph.errors import ApiError

MULTIPART = "multipart/form-data"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def get_content_type(request: Request) -> str:
    """Return a body's media type, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_unknown_fields(form: FormData, valid: Collection[str]) -> None:
    """Raise ApiError 422 where a form has a field that nobody would read."""
    unknown = next((field for field in form if field not in valid), None)
    if unknown is not None:
        message = f"unknown field {unknown!r}; valid fields: {', '.join(valid)}"
        raise ApiError(422, "unknown_field", message, unknown)


class TypedRoute(APIRoute):
    """A route that refuses a body of another content type, and a form with unknown fields."""

    wanted: tuple[str, ...]

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        fields = [field.alias for field in self.dependant.body_params]

        async def handle_checked(request: Request) -> Response:
            kind = get_content_type(request)
            if kind not in self.wanted:
                wanted = " or ".join(self.wanted)
                message = f"content-type is {kind or 'missing'!r}; send {wanted}"
                raise ApiError(415, "unsupported_content_type", message)
            if kind == MULTIPART and fields:  # FastAPI would leave out what it does not know
                refuse_unknown_fields(await request.form(), fields)
            return await handle(request)

        return handle_checked


class JsonRoute(TypedRoute):
    """Takes JSON."""

    wanted = ("application/json",)


class UploadRoute(TypedRoute):
    """Takes a form with files."""

    wanted = (MULTIPART,)


LEFT = "the client left before its body's end"
# With these Ray Serve's proxy lets a client outlive its connection, or cut its own answer short.
STEERING_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")
SLOWEST_BODY = 10_000
"""Bytes that give a body one second more to come in, up to `limits.max_body_s`."""
LATE = "the body comes too slowly, or stopped before its end; send it again"


class Guard:
    """ASGI middleware: refuses Serve's steering headers, unknown keys, and bodies above the limits.

    A body above `limits.max_body_bytes`, or with files above `limits.max_upload_bytes` more, is
    refused while it is read, and so is one that comes too slowly. WebSockets, which browsers open
    for any page, are for pages of this server and of `origins`.
    """

    def __init__(self, app: ASGIApp, service: Service, origins: Sequence[str]) -> None:
        self._app = app
        self._service = service
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        match scope["type"]:
            case "http":
                await self._handle_request(Request(scope), receive, send)
            case "websocket":
                await self._handle_websocket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    def _admit_connection(self, connection: HTTPConnection) -> None:
        """Note whose it is. Raises ApiError where it may not come in."""
        headers = connection.headers
        if steering := next((name for name in STEERING_HEADERS if name in headers), None):
            message = f"the header {steering} is not served; leave it out"
            raise ApiError(400, "header_not_allowed", message, steering)
        connection.state.share = authenticate(connection, self._service.limits.keys)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        try:
            self._check_origin(websocket)
            self._admit_connection(websocket)
        except ApiError as error:
            socket = Socket(websocket)
            await (
                socket.accept_client()
            )  # a browser's page learns nothing of what is refused before
            await socket.close_with_error(error)
            return
        await self._app(scope, receive, send)

    def _check_origin(self, websocket: WebSocket) -> None:
        """Raise ApiError 403 where a browser asks for a page that may not."""
        origin = websocket.headers.get("origin")
        own = origin and urlsplit(origin).netloc == websocket.headers.get("host")
        if origin is None or own or {"*", origin} & set(self._origins):
            return
        message = f"pages of {origin} may not call; add it to the ingress's cors_origins"
        raise ApiError(403, "origin_not_allowed", message)

    async def _handle_request(self, request: Request, receive: Receive, send: Send) -> None:
        scope, limits = request.scope, self._service.limits
        try:
            self._admit_connection(request)
        except ApiError as error:
            await build_error_response(request, error)(scope, receive, send)
            return
        limit = limits.max_body_bytes
        if get_content_type(request) == MULTIPART:
            limit += limits.max_upload_bytes
        seen, left, whole = 0, limits.max_body_s, False

        async def receive_counted() -> Message:
            nonlocal seen, left, whole
            asked = time.monotonic()
            try:
                async with asyncio.timeout(None if whole else left):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, LATE, {"connection": "close"}) from error
            except TaskCancelledError:  # Serve ends its own waiting so, where the client has left
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect" and not whole:
                # Else FastAPI's own error would keep the body, in a cycle of references.
                raise HTTPException(400, LEFT)
            size, waited = len(message.get("body", b"")), time.monotonic() - asked
            left = min(left - waited + size / SLOWEST_BODY, limits.max_body_s)
            whole = not message.get("more_body")
            seen += size
            if seen > limit:
                raise HTTPException(413, f"the body is above {limit} bytes")
            return message

        await self._app(scope, receive_counted, send)
