"""Defines every error that this package raises, in one tree.

AudiocraftError
├── NotReachable            the connection could not be opened, or the host name is unknown
│   ├── TimedOut            the server sent no data for `timeout` seconds
│   └── CutOff              the connection broke before the response was complete
├── ApiError                an error response: status, code, message, param, request_id
│   ├── InvalidRequest      400 to 499: the request is not valid; `message` says what is
│   │   ├── InvalidApiKey   401, 403
│   │   ├── NotFound        404
│   │   └── Conflict        409, for example a job that has not finished
│   ├── TooManyRequests     429; `retry_after` says how long to wait
│   └── ServerFailed        500 and above
│       └── Unavailable     503
├── JobEnded                a job that `wait_for_job` waited for failed or was cancelled
└── UnexpectedAnswer        the response is not one of this API, for example another server's page
"""

from collections.abc import Mapping
from typing import Any


class AudiocraftError(Exception):
    """Base class of all errors of this package."""


class NotReachable(AudiocraftError):
    """The server cannot be reached."""


class TimedOut(NotReachable):
    """The server sent no data for longer than the client's `timeout`."""


class CutOff(NotReachable):
    """The connection broke before the response was complete."""


class UnexpectedAnswer(AudiocraftError):
    """The response does not follow this API; the address may belong to another server."""


class ApiError(AudiocraftError):
    """The server answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        """HTTP status; None if the error came as an event in a stream that had started."""
        self.param = param
        """Name of the parameter that caused the error."""
        self.request_id = request_id
        """Identifies the request in the server's log."""
        self.retry_after = retry_after
        """Seconds to wait before the next try, from the `Retry-After` header."""

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON, in the shape that the server uses."""
        error = {"message": self.message, "param": self.param, "code": self.code}
        return {"error": error, "status": self.status, "request_id": self.request_id}


class InvalidRequest(ApiError):
    """The request is not valid; the message says which values are."""


class InvalidApiKey(InvalidRequest):
    """The API key is missing or unknown, or does not permit the request (401, 403)."""


class NotFound(InvalidRequest):
    """The model, job or page does not exist (404)."""


class Conflict(InvalidRequest):
    """The request is not possible in the present state (409), for example before a job's end."""


class TooManyRequests(ApiError):
    """The API key, or the whole server, has reached its limit of open requests (429)."""


class ServerFailed(ApiError):
    """The model or the server failed (500 and above)."""


class Unavailable(ServerFailed):
    """A service that the server depends on cannot be reached at the moment (503)."""


class JobEnded(AudiocraftError):
    """A job ended without a result: it failed or was cancelled."""

    def __init__(self, message: str, *, status: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        """`failed` or `cancelled`."""
        self.code = code


BY_STATUS: dict[int, type[ApiError]] = {
    401: InvalidApiKey,
    403: InvalidApiKey,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
    503: Unavailable,
}


def build_api_error(
    status: int | None, body: Any, request_id: str | None = None, retry_after: float | None = None
) -> ApiError:
    """Build the error that a response body describes.

    A body of any other shape, for example a proxy's page, gives an error with code `http_error`.
    """
    error: Mapping[str, Any] = body.get("error", {}) if isinstance(body, dict) else {}
    if not isinstance(error, dict) or "message" not in error:
        error = {"message": f"the server answered with status {status}", "code": "http_error"}
        body = {}
    by_server = status >= 500 if status else error.get("type") == "server_error"
    kind = BY_STATUS.get(status or 0, ServerFailed if by_server else InvalidRequest)
    return kind(
        str(error["message"]),
        code=str(error.get("code", "http_error")),
        status=status,
        param=error.get("param"),
        request_id=body.get("request_id") or request_id,
        retry_after=retry_after,
    )
