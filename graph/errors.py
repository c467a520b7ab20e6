"""Errors that users see, and how every error of the graph and the engine is described to them."""

from dataclasses import dataclass

from pydantic import BaseModel

from engine.errors import EngineError, InvalidAudio, InvalidRequest

INTERNAL_ERROR = "internal_error"
MAX_MESSAGE_CHARS, MAX_PARAM_CHARS = 1000, 200
"""The longest texts of an error, which can quote what the client sent."""


@dataclass
class ApiError(Exception):
    """An error that the user sees as it is: an HTTP status, a code, and what to do."""

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


def describe_error(error: Exception) -> ApiError:
    """Return what the user sees of an error; an unexpected error keeps its details for the log."""
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
        case _:
            message = "the server failed; the request id finds the reason in its log"
            return ApiError(500, INTERNAL_ERROR, message)


def build_error_detail(error: ApiError) -> ErrorDetail:
    """Build the body's part that describes an error."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return ErrorDetail(
        message=shorten_text(error.message, MAX_MESSAGE_CHARS),
        type=kind,
        param=error.param and shorten_text(error.param, MAX_PARAM_CHARS),
        code=error.code,
    )


def shorten_text(text: str, most: int) -> str:
    """Return a text of at most `most` characters: without its middle if it is longer."""
    if len(text) <= most:
        return text
    kept = most - len(" … ")
    return f"{text[: kept // 2]} … {text[-(kept // 2) :]}"
