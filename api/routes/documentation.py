"""What the API's description says of bodies and answers that several routes have."""

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
"""Stand for a file in the examples, which can hold none."""
Example = object


def build_examples(**by_name: Example) -> dict[str, Any]:
    """Return bodies to try, named by what they ask for."""
    named = {
        name: {"summary": name.replace("_", " ").capitalize(), "value": body}
        for name, body in by_name.items()
    }
    return {"examples": named}


def describe_files(**types: str) -> dict[str, Any]:
    """Return the media types of a form's files, by their fields."""
    return {"encoding": {field: {"contentType": kinds} for field, kinds in types.items()}}


IDEMPOTENCY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names this request. A request with a key that came before is not run again: it "
    "waits for the first one, or gets its answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
}


def describe_json_body(**by_name: Example) -> dict[str, Any]:
    """Return what FastAPI does not know of a route that takes JSON: a header, and examples."""
    body = {"content": {JSON: build_examples(**by_name)}}
    return {"parameters": [IDEMPOTENCY], "requestBody": body}


Answers = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The body is not what its content type says, or a header is not served.",
    401: "The API key is missing, or not known.",
    404: "No such model.",
    408: "The body came too slowly, or stopped before its end.",
    413: "The body is too large.",
    415: "The body's content type is another.",
    422: "A field is missing, unknown or out of range.",
    429: "Too much is outstanding, of this key or of all; `retry-after` says when to come again.",
    500: "The model or the server failed; the request's id finds the reason in the log.",
    503: "A model cannot be reached.",
}
_ERROR_HEADERS = {
    401: {"www-authenticate": {"schema": {"type": "string"}, "required": True}},
    429: {
        "retry-after": {
            "description": "Seconds.",
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
        "description": "A field is missing or out of range, or the file is no audio within limits.",
    }
}


def describe_events(*data: type[BaseModel], named: Sequence[str] = ()) -> dict[str, Any]:
    """Return a stream of server-sent events, as OpenAPI 3.1 is read: the schema of each of them.

    What `data` refers to must be among the document's components.
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
    "x-seed": {"description": "The seed used.", "schema": {"type": "integer"}, "required": True}
}
FILE_HEADERS: dict[str, Any] = {
    "x-model": {"description": "The model used.", "schema": {"type": "string"}, "required": True},
    "content-disposition": {
        "description": "A name to save a file by.",
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
        "description": "Names this request in the logs.",
        "schema": {"type": "string"},
    },
    "x-quality": {
        "description": "With `quality`: the tier, also of `auto`.",
        "schema": {"enum": list(BEST_FIRST)},
    },
    "x-content-credentials": {
        "description": "`signed` where files are sent whole and hold content credentials (C2PA).",
        "schema": {"enum": ["signed"]},
    },
    "x-cache": {
        "description": "With a seed: whether the answer was kept, or waited for with another's.",
        "schema": {"enum": ["hit", "joined", "miss"]},
    },
}
TIMING: dict[str, Any] = {
    "server-timing": {
        "description": "Milliseconds by stage, of a file that is sent whole.",
        "schema": {"type": "string"},
    }
}
