"""Checks keys, headers, and the type and size of bodies before the routes."""

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
    """Return the media type of a body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_unknown_fields(form: FormData, valid: Collection[str]) -> None:
    """Check that a form has only valid fields. Raises ApiError 422."""
    unknown = next((field for field in form if field not in valid), None)
    if unknown is not None:
        message = f"unknown field {unknown!r}; valid fields: {', '.join(valid)}"
        raise ApiError(422, "unknown_field", message, unknown)


class TypedRoute(APIRoute):
    """A route that refuses other content types than `wanted`, and forms with unknown fields."""

    wanted: tuple[str, ...]

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler with these checks."""
        handle = super().get_route_handler()
        fields = [field.alias for field in self.dependant.body_params]

        async def handle_checked(request: Request) -> Response:
            kind = get_content_type(request)
            if kind not in self.wanted:
                wanted = " or ".join(self.wanted)
                message = f"content-type is {kind or 'missing'!r}; send {wanted}"
                raise ApiError(415, "unsupported_content_type", message)
            if kind == MULTIPART and fields:  # FastAPI would ignore unknown fields
                refuse_unknown_fields(await request.form(), fields)
            return await handle(request)

        return handle_checked


class JsonRoute(TypedRoute):
    """A route that accepts JSON."""

    wanted = ("application/json",)


class UploadRoute(TypedRoute):
    """A route that accepts a form with files."""

    wanted = (MULTIPART,)


LEFT = "the client closed the connection before the end of the body"
# With these headers a client could change when Ray Serve's proxy ends its request.
STEERING_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")
SLOWEST_BODY = 10_000
"""Each time this many bytes arrive, the body gets one more second, up to `limits.max_body_s`."""
LATE = "the body arrives too slowly, or stopped before its end; send it again"


class Guard:
    """ASGI middleware that refuses unknown keys, STEERING_HEADERS and bodies above the limits.

    A body may have `limits.max_body_bytes`, and a form also `limits.max_upload_bytes`. A larger or
    slower body is refused while it is read. Browsers open WebSockets for any page, so a WebSocket
    is accepted only from pages of this server and of `origins`.
    """

    def __init__(self, app: ASGIApp, service: Service, origins: Sequence[str]) -> None:
        self._app = app
        self._service = service
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request and pass it to the application."""
        match scope["type"]:
            case "http":
                await self._handle_request(Request(scope), receive, send)
            case "websocket":
                await self._handle_websocket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    def _admit_connection(self, connection: HTTPConnection) -> None:
        """Store the share of the key in the state. Raises ApiError 400 or 401."""
        headers = connection.headers
        if steering := next((name for name in STEERING_HEADERS if name in headers), None):
            message = f"the header {steering} is not allowed; leave it out"
            raise ApiError(400, "header_not_allowed", message, steering)
        connection.state.share = authenticate(connection, self._service.limits.keys)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        try:
            self._check_origin(websocket)
            self._admit_connection(websocket)
        except ApiError as error:
            socket = Socket(websocket)
            await socket.accept_client()  # a browser hides errors from before this
            await socket.close_with_error(error)
            return
        await self._app(scope, receive, send)

    def _check_origin(self, websocket: WebSocket) -> None:
        """Check the page that opens a WebSocket in a browser. Raises ApiError 403."""
        origin = websocket.headers.get("origin")
        own = origin and urlsplit(origin).netloc == websocket.headers.get("host")
        if origin is None or own or {"*", origin} & set(self._origins):
            return
        message = f"pages of {origin} are not allowed; add it to cors_origins of the ingress"
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
            except TaskCancelledError:  # Serve raises this if the client has left
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect" and not whole:
                # FastAPI's own error would keep the body in a cycle of references.
                raise HTTPException(400, LEFT)
            size, waited = len(message.get("body", b"")), time.monotonic() - asked
            left = min(left - waited + size / SLOWEST_BODY, limits.max_body_s)
            whole = not message.get("more_body")
            seen += size
            if seen > limit:
                raise HTTPException(413, f"the body is above {limit} bytes")
            return message

        await self._app(scope, receive_counted, send)
