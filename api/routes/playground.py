"""The routes of the playground, a web page that uses only this server."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[1] / "playground"
WAVESURFER = "'sha256-2/AFTPuP4qEbSn4KmAzsJt3JK6WrqUViQjrdhLR/QMQ='"
"""The hash of the style that the vendored wavesurfer.js adds; a test compares it."""
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    f"media-src blob:; style-src 'self' {WAVESURFER}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-cache",  # a browser keeps the file and checks its ETag
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=FOLDER)


@router.api_route("/", methods=["GET", "HEAD"])
async def get_page(request: Request) -> Response:
    """Send the page."""
    return await _send_file("index.html", request)


@router.api_route("/playground/{path:path}", methods=["GET", "HEAD"])
async def get_file(path: str, request: Request) -> Response:
    """Send a file of the page, or 304. Raises HTTPException 404."""
    return await _send_file(path, request)


async def _send_file(path: str, request: Request) -> Response:
    answer = await files.get_response(path, request.scope)
    answer.headers.update(HEADERS)
    return answer
