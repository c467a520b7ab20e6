"""Guards before the routes: known keys, bodies of the wanted type and size, no steering headers."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.errors import ApiError, answer
from graph.keys import share_of
from graph.service import Service

MULTIPART = "multipart/form-data"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def content_type(request: Request) -> str:
    """Return a body's media type, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def no_unknown_fields(form: FormData, valid: Collection[str]) -> None:
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

        async def checked(request: Request) -> Response:
            kind = content_type(request)
            if kind not in self.wanted:
                wanted = " or ".join(self.wanted)
                message = f"content-type is {kind or 'missing'!r}; send {wanted}"
                raise ApiError(415, "unsupported_content_type", message)
            if kind == MULTIPART and fields:  # FastAPI would leave out what it does not know
                no_unknown_fields(await request.form(), fields)
            return await handle(request)

        return checked


class JsonRoute(TypedRoute):
    """Takes JSON."""

    wanted = ("application/json",)


class UploadRoute(TypedRoute):
    """Takes a form with files."""

    wanted = (MULTIPART,)


# With these Ray Serve's proxy lets a client outlive its connection, or cut its own answer short.
STEERING_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")


class Guard:
    """ASGI middleware: refuses Serve's steering headers, unknown keys, and bodies above the limit.

    A body above `limits.max_body_bytes`, or with files above `limits.max_upload_bytes` more, is
    refused while it is read.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if steering := next((name for name in STEERING_HEADERS if name in request.headers), None):
            message = f"the header {steering} is not served; leave it out"
            await answer(request, ApiError(400, "header_not_allowed", message, steering))(
                scope, receive, send
            )
            return
        limits = self._service.limits
        try:
            request.state.share = share_of(request, limits.keys)
        except ApiError as error:
            await answer(request, error)(scope, receive, send)
            return
        limit = limits.max_body_bytes
        if content_type(request) == MULTIPART:
            limit += limits.max_upload_bytes
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(413, f"the body is above {limit} bytes")
            return message

        await self._app(scope, counted, send)
