"""What the API's description says of answers that several routes give."""

from typing import Any

from graph.audio.output import FORMATS
from graph.errors import ErrorBody

Answers = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The body is not what its content type says.",
    401: "The API key is missing, or not known.",
    404: "No such model.",
    408: "The body came too slowly, or stopped before its end.",
    413: "The body is too large.",
    415: "The body's content type is another.",
    422: "A field is missing, unknown or out of range.",
    429: "Too much is outstanding, of this key or of all; `retry-after` says when to come again.",
    503: "A model cannot be reached.",
}
ERRORS: Answers = {
    status: {"model": ErrorBody, "description": reason} for status, reason in _REASONS.items()
}
UPLOAD_ERRORS: Answers = ERRORS | {
    422: {
        "model": ErrorBody,
        "description": "A field is missing or out of range, or the file is no audio within limits.",
    }
}
BINARY = {"type": "string", "format": "binary"}
WAV: dict[str, Any] = {
    "description": "A 16-bit PCM WAV file at the model's sample rate, not normalised.",
    "content": {"audio/wav": {"schema": BINARY}},
}
FILES: dict[str, Any] = {kind.media_type: {"schema": BINARY} for kind in FORMATS.values()}
HEADERS: dict[str, Any] = {
    "x-seed": {"description": "The seed used.", "schema": {"type": "integer"}},
    "x-model": {"description": "The model used.", "schema": {"type": "string"}},
    "x-request-id": {
        "description": "Names this request in the logs.",
        "schema": {"type": "string"},
    },
    "x-content-credentials": {
        "description": "`signed` where files are sent whole and hold content credentials (C2PA).",
        "schema": {"enum": ["signed"]},
    },
}
TIMING: dict[str, Any] = {
    "server-timing": {
        "description": "Milliseconds by stage, of a file that is sent whole.",
        "schema": {"type": "string"},
    }
}
