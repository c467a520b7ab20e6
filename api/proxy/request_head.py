"""The limits of a request's head, checked while it arrives.

httptools collects a header in time that grows with the square of its length, and keeps all of it:
without limits, one header of 60 MB stops the proxy for 9 seconds.
"""

from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

from api.errors import ErrorBody
from graph.errors import ApiError, build_error_detail

MAX_TARGET_BYTES = 8_192
"""The longest request target (path and query)."""
MAX_HEADER_BYTES = 16_384
"""The longest header, name and value."""
MAX_HEAD_BYTES = 32_768
"""The longest head: target and all headers together."""
MAX_HEADERS = 100
"""The most headers in one request."""
STEERING_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")
"""Headers by which a client could change when Ray Serve's proxy ends its request."""
DECODED_HEADERS = ("x-request-id", "x-session-id", "serve-multiplexed-model-id")
"""Headers that the proxy decodes as UTF-8; it answers with a plain 500 where it cannot."""


@dataclass
class RequestHead:
    """Counts the bytes of one request's head, and of the trailers after its body.

    Every method raises ApiError: 414 for the target, 431 for headers (RFC 6585), and 400 for a
    header that is not allowed.
    """

    target_bytes: int = 0
    header_bytes: int = 0
    headers: int = 0
    unparsed_bytes: int = 0
    """Bytes since the parser last reported the end of a head or a part of a body."""

    def add_target(self, part: bytes) -> None:
        """Count a part of the target."""
        self.target_bytes += len(part)
        if self.target_bytes > MAX_TARGET_BYTES:
            message = f"the path and query have more than {MAX_TARGET_BYTES} bytes; send less"
            raise ApiError(414, "path_too_long", message)

    def add_header(self, name: bytes, value: bytes) -> None:
        """Count a complete header, and check it."""
        _check_header(name, value)
        size = len(name) + len(value)
        self.headers += 1
        self.header_bytes += size
        if self.headers > MAX_HEADERS:
            raise _headers_too_large(f"there are more than {MAX_HEADERS} headers; send fewer")
        if size > MAX_HEADER_BYTES:
            raise _headers_too_large(f"a header has more than {MAX_HEADER_BYTES} bytes; send less")
        self._check_sum(self.target_bytes + self.header_bytes)

    def check_unparsed(self) -> None:
        """Check the number of bytes in a part that has not ended."""
        self._check_sum(self.unparsed_bytes)

    def _check_sum(self, size: int) -> None:
        if size > MAX_HEAD_BYTES:
            message = f"path and headers have more than {MAX_HEAD_BYTES} bytes; send less"
            raise _headers_too_large(message)


def _check_header(name: bytes, value: bytes) -> None:
    """Refuse a header that steers Ray Serve's proxy, or that it cannot decode. Raises ApiError."""
    called = name.decode("latin-1").lower().replace("_", "-")
    if called in STEERING_HEADERS:
        message = f"the header {called} is not allowed; leave it out"
        raise ApiError(400, "header_not_allowed", message, called)
    if called not in DECODED_HEADERS:
        return
    try:
        value.decode()
    except UnicodeDecodeError as error:
        message = f"the header {called} is not UTF-8; send ASCII characters"
        raise ApiError(400, "invalid_header", message, called) from error


def _headers_too_large(message: str) -> ApiError:
    return ApiError(431, "headers_too_large", message)


def build_refusal(error: ApiError) -> bytes:
    """Build the bytes of an answer in the API's error shape, which ends the connection."""
    body = ErrorBody(error=build_error_detail(error), request_id=str(uuid4()))
    text = body.model_dump_json().encode()
    lines = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(text)}",
        f"x-request-id: {body.request_id}",
        "connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + text
