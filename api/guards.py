"""Checks keys, headers, and the type and size of bodies before the routes."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response, WebSocket
from fastapi.routing import APIRoute
from ray.exceptions import TaskCancelledError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import build_error_response
from api.keys import authenticate, is_open
from api.pages import check_host, check_origin
from api.service import Service
from api.sockets import Socket
from graph.errors import ApiError

JSON, MULTIPART = "application/json", "multipart/form-data"
MAX_PARTS = 50_000
"""The most lists, objects and names in a JSON body; these characters in texts count as well."""
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def get_content_type(request: Request) -> str:
    """Return the media type of a body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_parts(body: bytes) -> None:
    """Refuse a JSON body of too many parts before it is parsed. Raises ApiError 413.

    Each list, object and name costs some hundred times its bytes once it is parsed and checked.
    A list of numbers does not, which is how codes are sent. The parser holds Python's lock, so a
    thread would not help others.
    """
    if sum(map(body.count, (b"[", b"{", b":"))) > MAX_PARTS:
        message = f"the body has more than {MAX_PARTS} lists, objects and fields; send fewer"
        raise ApiError(413, "body_too_large", message)


class TypedRoute(APIRoute):
    """A route that refuses other content types than `wanted`, and JSON of too many parts."""

    wanted: tuple[str, ...]

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler with these checks."""
        handle = super().get_route_handler()

        async def handle_checked(request: Request) -> Response:
            kind = get_content_type(request)
            if kind not in self.wanted:
                wanted = " or ".join(self.wanted)
                message = f"content-type is {kind or 'missing'!r}; send {wanted}"
                raise ApiError(415, "unsupported_content_type", message)
            if kind == JSON:
                check_parts(await request.body())
            return await handle(request)

        return handle_checked


class JsonRoute(TypedRoute):
    """A route that accepts JSON."""

    wanted = (JSON,)


class UploadRoute(TypedRoute):
    """A route that accepts a form with files."""

    wanted = (MULTIPART,)


LEFT = "the client closed the connection before the end of the body"
SLOWEST_BODY = 10_000
"""Each time this many bytes arrive, the body gets one more second, up to `limits.max_body_s`."""
LATE = "the body arrives too slowly, or stopped before its end; send it again"


class Guard:
    """ASGI middleware that refuses foreign pages, unknown keys and bodies above the limits.

    A body may have `limits.max_body_bytes`, and a form also `limits.max_upload_bytes`. A larger or
    slower body is refused while it is read. `origins` are the pages that may call, beside those of
    this server, and `hosts` the names by which a server without keys may be called.
    """

    def __init__(
        self, app: ASGIApp, service: Service, origins: Sequence[str], hosts: Sequence[str]
    ) -> None:
        self._app = app
        self._service = service
        self._origins, self._hosts = origins, hosts

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
        """Store the share of the key in the state. Raises ApiError 401 or 403."""
        limits = self._service.limits
        check_origin(connection, self._origins)
        if not limits.keys and not is_open(connection):
            check_host(connection, self._hosts)
        connection.state.share = authenticate(connection, limits)

    async def _handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        try:
            self._admit_connection(websocket)
        except ApiError as error:
            socket = Socket(websocket)
            await socket.accept_client()  # a browser hides errors from before this
            await socket.close_with_error(error)
            return
        await self._app(scope, receive, send)

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
