"""What the API's description says of requests' bodies, beside their schemas."""

from typing import Any

from api.respond.responses import MAX_KEY_CHARS

JSON = "application/json"
AUDIO = "audio/wav, audio/flac, audio/mpeg, audio/ogg, audio/mp4, audio/aiff"
SAFETENSORS = "application/octet-stream"
AUDIO_FILE, CODES_FILE = "music.wav", "codes.safetensors"
"""Stand for a file in the examples, which can hold none."""
Example = object


def examples(**by_name: Example) -> dict[str, Any]:
    """Return bodies to try, named by what they ask for."""
    named = {
        name: {"summary": name.replace("_", " ").capitalize(), "value": body}
        for name, body in by_name.items()
    }
    return {"examples": named}


def files(**types: str) -> dict[str, Any]:
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


def json_body(**by_name: Example) -> dict[str, Any]:
    """Return what FastAPI does not know of a route that takes JSON: a header, and examples."""
    body = {"content": {JSON: examples(**by_name)}}
    return {"parameters": [IDEMPOTENCY], "requestBody": body}
