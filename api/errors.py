"""Converts errors to HTTP responses, with OpenAI's error format and the request's id.

{"error": {"message", "type", "param", "code"}, "request_id"}
"""

import logging
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

from engine.errors import EngineError
from graph import errors as graph_errors
from graph.errors import ApiError, ErrorDetail, build_error_detail

logger = logging.getLogger("ray.serve")


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail
    request_id: str


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


def get_request_id(request: HTTPConnection) -> str:
    """Return the request id from the proxy, or a new id if there is no proxy."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = request.headers.get("x-request-id") or str(uuid4())
    named: str = request.state.request_id
    return named


def describe_validation_error(error: RequestValidationError) -> ApiError:
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


def describe_http_error(error: HTTPException) -> ApiError:
    """Describe an error that Starlette or FastAPI raised."""
    code = HTTP_CODES.get(error.status_code, "http_error")
    phrase = HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, code, str(error.detail or phrase))


def describe_error(error: Exception) -> ApiError:
    """Convert any error, also of FastAPI and Starlette, to the ApiError that the user sees."""
    match error:
        case RequestValidationError():
            return describe_validation_error(error)
        case HTTPException():
            return describe_http_error(error)
        case FormParserError():
            return ApiError(400, "invalid_body", f"the form cannot be read: {error}")
        case _:
            return graph_errors.describe_error(error)


def build_error_body(request: HTTPConnection, error: Exception) -> ErrorBody:
    """Build the body of an error, and log the request if the server caused the error.

    The traceback of an unexpected error is logged where the error is raised again.
    """
    described = describe_error(error)
    if described.status >= 500:
        logger.error("request %s: %s", get_request_id(request), error)
    return ErrorBody(error=build_error_detail(described), request_id=get_request_id(request))


def _build_allow_header(request: Request) -> dict[str, str]:
    """Build the header of status 405, with the methods of all routes that have the path."""
    path = request.scope["route"].path
    routes = [one for one in iter_route_contexts(request.app.routes) if one.path == path]
    return {"allow": ", ".join(sorted({name for one in routes for name in one.methods or ()}))}


def build_error_response(request: Request, error: Exception) -> JSONResponse:
    """Build the response to a request that failed."""
    headers = error.headers if isinstance(error, ApiError | HTTPException) else None
    if isinstance(error, HTTPException) and error.status_code == 405 and "route" in request.scope:
        headers = _build_allow_header(request)
    body = build_error_body(request, error)
    status = describe_error(error).status
    return JSONResponse(body.model_dump(), status, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error in the format of ErrorBody."""

    async def respond(request: Request, error: Exception) -> JSONResponse:
        return build_error_response(request, error)

    # Starlette raises an unexpected error again after the answer, so the error reaches the log.
    expected = (ApiError, EngineError, RequestValidationError, HTTPException, FormParserError)
    for kind in (*expected, Exception):
        app.add_exception_handler(kind, respond)
