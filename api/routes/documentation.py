"""The parts of the OpenAPI document that several routes share."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from api.audio.output import FORMATS
from api.errors import ErrorBody
from api.respond.responses import MAX_KEY_CHARS
from api.settings import BEST_FIRST

JSON = "application/json"
AUDIO = "audio/wav, audio/flac, audio/mpeg, audio/ogg, audio/mp4, audio/aiff"
SAFETENSORS = "application/octet-stream"
AUDIO_FILE, CODES_FILE = "music.wav", "codes.safetensors"
"""The names that stand for files in the examples, which cannot contain files."""
Example = object


def build_examples(**by_name: Example) -> dict[str, Any]:
    """Return example bodies with their names."""
    named = {
        name: {"summary": name.replace("_", " ").capitalize(), "value": body}
        for name, body in by_name.items()
    }
    return {"examples": named}


def describe_files(**types: str) -> dict[str, Any]:
    """Return the media types of the files of a form, by field."""
    return {"encoding": {field: {"contentType": kinds} for field, kinds in types.items()}}


IDEMPOTENCY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this request. A second request with the same key is not run again: "
    "it gets the answer of the first request.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
}


def describe_json_body(**by_name: Example) -> dict[str, Any]:
    """Return the header and the examples of a route that accepts JSON."""
    body = {"content": {JSON: build_examples(**by_name)}}
    return {"parameters": [IDEMPOTENCY], "requestBody": body}


Answers = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The body does not match its content type, or a header is not allowed.",
    401: "The API key is missing or unknown.",
    403: "A browser sends it for the page of another, or calls a server without keys by a name.",
    404: "The model is unknown.",
    408: "The body arrived too slowly, or stopped before its end.",
    413: "The body is too large.",
    415: "The content type of the body is not supported.",
    422: "A field is missing, unknown or out of range.",
    429: "This key or the server has too many requests; try again after `retry-after` seconds.",
    500: "The model or the server failed; the log has the reason under the request id.",
    503: "A model cannot be reached.",
}
_ERROR_HEADERS = {
    401: {"www-authenticate": {"schema": {"type": "string"}, "required": True}},
    429: {
        "retry-after": {
            "description": "The seconds until the next attempt.",
            "schema": {"type": "integer", "minimum": 1},
            "required": True,
        }
    },
}
ERRORS: Answers = {
    status: {
        "model": ErrorBody,
        "description": reason,
        "headers": _ERROR_HEADERS.get(status, {}),
    }
    for status, reason in _REASONS.items()
}
UPLOAD_ERRORS: Answers = ERRORS | {
    422: {
        "model": ErrorBody,
        "description": "A field is missing or out of range, or the file is not valid audio.",
    }
}


def describe_events(*data: type[BaseModel], named: Sequence[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of a stream of server-sent events.

    The models that `data` refers to must be components of the document.
    """
    kinds = [one.model_json_schema(ref_template="#/components/schemas/{model}") for one in data]
    for kind in kinds:
        kind.pop("$defs", None)
    json = {"contentMediaType": "application/json", "contentSchema": {"anyOf": kinds}}
    fields = {"event": {"enum": list(named)}} if named else {}
    properties = fields | {"data": {"type": "string"} | json}
    return {"schema": {"type": "object", "required": list(properties), "properties": properties}}


BINARY = {"type": "string", "format": "binary"}
FILES: dict[str, Any] = {kind.media_type: {"schema": BINARY} for kind in FORMATS.values()}
SEED: dict[str, Any] = {
    "x-seed": {"description": "The seed.", "schema": {"type": "integer"}, "required": True}
}
FILE_HEADERS: dict[str, Any] = {
    "x-model": {"description": "The model.", "schema": {"type": "string"}, "required": True},
    "content-disposition": {
        "description": "The name of the file.",
        "schema": {"type": "string"},
    },
}
WAV: dict[str, Any] = {
    "description": "A 16-bit PCM WAV file at the model's sample rate, not normalised.",
    "content": {"audio/wav": {"schema": BINARY}},
    "headers": FILE_HEADERS,
}
HEADERS: dict[str, Any] = {
    **SEED,
    **FILE_HEADERS,
    "x-request-id": {
        "description": "The id of this request in the logs.",
        "schema": {"type": "string"},
    },
    "x-quality": {
        "description": "The tier, for requests with `quality`.",
        "schema": {"enum": list(BEST_FIRST)},
    },
    "x-content-credentials": {
        "description": "`signed` if the files are sent whole and have content credentials (C2PA).",
        "schema": {"enum": ["signed"]},
    },
    "x-cache": {
        "description": "For requests with a seed: `hit` for a cached answer, `joined` for the "
        "answer of a request that was already running, `miss` for a new answer.",
        "schema": {"enum": ["hit", "joined", "miss"]},
    },
}
TIMING: dict[str, Any] = {
    "server-timing": {
        "description": "The duration of each stage in milliseconds, for a file that is sent whole.",
        "schema": {"type": "string"},
    }
}
