"""Sends a stored file, or the range of it that is asked for (RFC 9110, 13 and 14)."""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Send

from graph.errors import ApiError

RANGE = re.compile(r"bytes=(\d*)-(\d*)")
Read = Callable[[int, int], Generator[bytes, None, None]]
"""Yields a file's bytes from a first one to before a last one; the file is open meanwhile."""


def respond_with_file(
    request: Request,
    read: Read,
    size: int,
    tag: str,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """Send a file, or a part of it.

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
        return send_bytes(read, 0, size, 200, media_type, {**headers, **told})
    if first >= size or first == end:
        message = f"range: the answer has {size} bytes; ask for bytes from 0 to {size - 1}"
        told["content-range"] = f"bytes */{size}"
        raise ApiError(416, "invalid_range", message, "range", told)
    told["content-range"] = f"bytes {first}-{end - 1}/{size}"
    return send_bytes(read, first, end, 206, media_type, {**headers, **told})


def _read_list(request: Request, name: str) -> list[str]:
    return request.headers.get(name, "").split(",")


def _find_bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first byte and the byte after the last; the end is lower for an invalid range."""
    if first:
        return int(first), min(int(last) + 1, size) if last else max(size, int(first))
    return (max(size - int(last), 0), size) if last else (1, 0)


class FileResponse(StreamingResponse):
    """Sends the parts of a file, and closes the file also when the client leaves."""

    def __init__(self, parts: Generator[bytes, None, None], *args: Any) -> None:
        super().__init__(parts, *args)
        self._parts = parts

    async def stream_response(self, send: Send) -> None:
        """Send all parts."""
        with closing(self._parts):
            await super().stream_response(send)


def send_bytes(
    read: Read,
    first: int,
    end: int,
    status: int,
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """Send the bytes from a first one to before a last one, part by part."""
    length = {"content-length": str(end - first)}
    return FileResponse(read(first, end), status, {**headers, **length}, media_type)
