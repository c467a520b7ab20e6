"""Sends a stored file, or the range of it that is asked for (RFC 9110, 13 and 14)."""

import re
from collections.abc import Callable, Iterator, Mapping

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from graph.errors import ApiError

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def respond_with_file(
    request: Request,
    read: Callable[[int, int], Iterator[bytes]],
    size: int,
    tag: str,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """Send the bytes that `read` returns from a first byte to before a last one.

    `tag` is the file's strong `ETag`. Several ranges in one request are answered by the whole file.
    Raises ApiError 416 where the file has none of the bytes.
    """
    told = {"etag": tag, "accept-ranges": "bytes"}
    known = [one.strip().removeprefix("W/") for one in _read_list(request, "if-none-match")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=told)
    found = None
    if request.headers.get("if-range", tag) == tag:
        found = RANGE.fullmatch(request.headers.get("range", ""))
    first, end = _find_bounds(found[1], found[2], size) if found else (0, size)
    if not found or end < first:
        return _send_bytes(read, 0, size, 200, media_type, {**headers, **told})
    if first >= size or first == end:
        message = f"range: the answer has {size} bytes; ask for bytes from 0 to {size - 1}"
        told["content-range"] = f"bytes */{size}"
        raise ApiError(416, "invalid_range", message, "range", told)
    told["content-range"] = f"bytes {first}-{end - 1}/{size}"
    return _send_bytes(read, first, end, 206, media_type, {**headers, **told})


def _read_list(request: Request, name: str) -> list[str]:
    return request.headers.get(name, "").split(",")


def _find_bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first byte and the byte after the last; the end is lower for an invalid range."""
    if first:
        return int(first), min(int(last) + 1, size) if last else max(size, int(first))
    return (max(size - int(last), 0), size) if last else (1, 0)


def _send_bytes(
    read: Callable[[int, int], Iterator[bytes]],
    first: int,
    end: int,
    status: int,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    return StreamingResponse(
        read(first, end),
        status,
        {**headers, "content-length": str(end - first)},
        media_type,
    )
