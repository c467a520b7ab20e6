"""The one place where errors become HTTP: OpenAI's error shape, plus the request's id.

{"error": {"message", "type", "param", "code"}, "request_id"}
"""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from engine.errors import EngineError, InvalidAudio, InvalidRequest

logger = logging.getLogger("ray.serve")


@dataclass
class ApiError(Exception):
    """An error that the user sees as it stands."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: dict[str, str] | None = None

    def __str__(self) -> str:
        return self.message


class ErrorDetail(BaseModel):
    """What went wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail
    request_id: str


UNFORESEEN = "internal_error"
HTTP_CODES = {
    400: "invalid_body",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_late",
    413: "body_too_large",
}
VALIDATION_CODES = {
    "json_invalid": (400, "invalid_json"),
    "missing": (422, "missing_field"),
    "unknown_key": (422, "unknown_field"),
}


def request_id(request: HTTPConnection) -> str:
    """Return the id that the proxy gave this request, or a new one where there is no proxy."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = request.headers.get("x-request-id") or str(uuid4())
    named: str = request.state.request_id
    return named


def from_validation(error: RequestValidationError) -> ApiError:
    """Describe the first problem that pydantic found in a request's body."""
    first = error.errors()[0]
    status, code = VALIDATION_CODES.get(first["type"], (422, "invalid_value"))
    fields = [str(part) for part in first["loc"] if part not in ("body", "query")]
    if code == "invalid_json":
        return ApiError(status, code, f"the body is not JSON: {first['ctx']['error']}")
    param = first["ctx"]["key"] if code == "unknown_field" else ".".join(fields) or None
    message = first["msg"].removeprefix("Value error, ")
    prefix = f"{param}: " if param and code != "unknown_field" else ""
    return ApiError(status, code, prefix + message, param)


def from_http(error: HTTPException) -> ApiError:
    """Describe an error that Starlette or FastAPI raised."""
    code = HTTP_CODES.get(error.status_code, "http_error")
    phrase = HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, code, str(error.detail or phrase))


def described(error: Exception) -> ApiError:
    """Say what any error is to the user; of those that nobody foresaw, nothing but that."""
    match error:
        case ApiError():
            return error
        case InvalidAudio():
            return ApiError(422, "invalid_audio", str(error), error.param)
        case InvalidRequest():
            return ApiError(422, "invalid_value", str(error), error.param)
        case EngineError():
            message = "the model failed on this request; try again, or with other parameters"
            return ApiError(500, "generation_failed", message)
        case RequestValidationError():
            return from_validation(error)
        case HTTPException():
            return from_http(error)
        case FormParserError():
            return ApiError(400, "invalid_body", f"the form cannot be read: {error}")
        case _:
            message = "the server failed; the request id finds the reason in its log"
            return ApiError(500, UNFORESEEN, message)


def told(error: Exception) -> ErrorDetail:
    """Return what the user is told of an error."""
    shown = described(error)
    kind = "server_error" if shown.status >= 500 else "invalid_request_error"
    return ErrorDetail(message=shown.message, type=kind, param=shown.param, code=shown.code)


def body_of(request: HTTPConnection, error: Exception) -> ErrorBody:
    """Return the error's body, and log what is this server's fault.

    Of what nobody foresaw only the request is logged: who raises it logs the rest.
    """
    if described(error).status >= 500:
        logger.error("request %s: %s", request_id(request), error)
    return ErrorBody(error=told(error), request_id=request_id(request))


def _allowed(request: Request) -> dict[str, str]:
    """Return the header of 405: the methods of every route of the path, not of the first alone."""
    path = request.scope["route"].path
    routes = [one for one in iter_route_contexts(request.app.routes) if one.path == path]
    return {"allow": ", ".join(sorted({name for one in routes for name in one.methods or ()}))}


def answer(request: Request, error: Exception) -> JSONResponse:
    """Build the error answer."""
    headers = error.headers if isinstance(error, ApiError | HTTPException) else None
    if isinstance(error, HTTPException) and error.status_code == 405 and "route" in request.scope:
        headers = _allowed(request)
    body = body_of(request, error)
    return JSONResponse(body.model_dump(), described(error).status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the one shape."""

    async def answered(request: Request, error: Exception) -> JSONResponse:
        return answer(request, error)

    # What nobody foresaw Starlette raises again once this is sent, so that it reaches the log.
    expected = (ApiError, EngineError, RequestValidationError, HTTPException, FormParserError)
    for kind in (*expected, Exception):
        app.add_exception_handler(kind, answered)
