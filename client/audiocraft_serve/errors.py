"""Every error that this package raises.

AudiocraftError
├── NotReachable            nobody listens there, or the name is not known
│   ├── TimedOut            nothing came for as long as `timeout` allows
│   └── CutOff              the connection broke before the answer's end
├── ApiError                the server's own word: status, code, message, param, request_id
│   ├── InvalidRequest      what is asked for cannot be had; `message` says what can
│   │   ├── InvalidApiKey   401, 403
│   │   ├── NotFound        404
│   │   └── Conflict        409, such as a job that has not finished
│   ├── TooManyRequests     429; `retry_after` says when to come again
│   └── ServerFailed        500 and above
│       └── Unavailable     503
├── JobEnded                a job that was waited for has failed, or was cancelled
└── UnexpectedAnswer        an answer that is none of this API's, such as another server's page
"""

from collections.abc import Mapping
from typing import Any


class AudiocraftError(Exception):
    """The root of them."""


class NotReachable(AudiocraftError):
    """The server cannot be reached."""


class TimedOut(NotReachable):
    """Nothing came for too long."""


class CutOff(NotReachable):
    """The connection broke before the answer's end."""


class UnexpectedAnswer(AudiocraftError):
    """The answer is not one of this API's."""


class ApiError(AudiocraftError):
    """What the server says went wrong."""

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
        """Of HTTP; None where the error came in a stream that had begun."""
        self.param = param
        """The parameter at fault."""
        self.request_id = request_id
        """Finds the request in the server's log."""
        self.retry_after = retry_after
        """Seconds after which to come again."""

    def to_json(self) -> dict[str, Any]:
        """Return the error as the server tells it."""
        told = {"message": self.message, "param": self.param, "code": self.code}
        return {"error": told, "status": self.status, "request_id": self.request_id}


class InvalidRequest(ApiError):
    """What is asked for cannot be had."""


class InvalidApiKey(InvalidRequest):
    """The API key is missing, or not known."""


class NotFound(InvalidRequest):
    """There is no such model, job or page."""


class Conflict(InvalidRequest):
    """It cannot be had now, such as the audio of a job that has not finished."""


class TooManyRequests(ApiError):
    """Too much is outstanding, of this key or of all."""


class ServerFailed(ApiError):
    """The model or the server failed."""


class Unavailable(ServerFailed):
    """Something behind the server cannot be reached now."""


class JobEnded(AudiocraftError):
    """A job has ended without what it was to make."""

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


def api_error(
    status: int | None, body: Any, request_id: str | None = None, retry_after: float | None = None
) -> ApiError:
    """Return the error of a body in the server's shape, or of whatever else came in its place."""
    told: Mapping[str, Any] = body.get("error", {}) if isinstance(body, dict) else {}
    if not isinstance(told, dict) or "message" not in told:
        told = {"message": f"the server answered with status {status}", "code": "http_error"}
        body = {}
    by_server = status >= 500 if status else told.get("type") == "server_error"
    kind = BY_STATUS.get(status or 0, ServerFailed if by_server else InvalidRequest)
    return kind(
        str(told["message"]),
        code=str(told.get("code", "http_error")),
        status=status,
        param=told.get("param"),
        request_id=body.get("request_id") or request_id,
        retry_after=retry_after,
    )
