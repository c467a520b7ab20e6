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
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from engine.errors import EngineError, InvalidAudio, InvalidRequest

logger = logging.getLogger("ray.serve")


@dataclass
class ApiError(Exception):
    """An error that the user sees as it stands."""

    status: int
    code: str
    message: str
    param: str | None = None

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


HTTP_CODES = {
    400: "invalid_body",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
}
VALIDATION_CODES = {
    "json_invalid": (400, "invalid_json"),
    "missing": (422, "missing_field"),
    "unknown_key": (422, "unknown_field"),
}


def request_id(request: Request) -> str:
    """Return the id that the proxy gave this request, or a new one where there is no proxy."""
    return request.headers.get("x-request-id") or str(uuid4())


def answer(request: Request, error: ApiError) -> JSONResponse:
    """Build the error answer."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    detail = ErrorDetail(message=error.message, type=kind, param=error.param, code=error.code)
    body = ErrorBody(error=detail, request_id=request_id(request))
    return JSONResponse(body.model_dump(), error.status)


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


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the one shape."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return answer(request, error)

    async def engine(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, InvalidAudio):
            return answer(request, ApiError(422, "invalid_audio", str(error), error.param))
        if isinstance(error, InvalidRequest):
            return answer(request, ApiError(422, "invalid_value", str(error), error.param))
        logger.error("request %s: %s", request_id(request), error)
        message = "the model failed on this request; try again, or with other parameters"
        return answer(request, ApiError(500, "generation_failed", message))

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(request, from_validation(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = answer(request, from_http(error))
        response.headers.update(error.headers or {})
        return response

    async def unexpected(request: Request, _error: Exception) -> JSONResponse:
        # Starlette raises the error again once this is sent, so that it reaches the log.
        message = "the server failed; the request id finds the reason in its log"
        return answer(request, ApiError(500, "internal_error", message))

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(EngineError, engine)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
