"""What the API's description says of requests' bodies, beside their schemas."""

from typing import Any

from api.guards import MULTIPART

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


def json_body(**by_name: Example) -> dict[str, Any]:
    """Return what FastAPI does not know of a route that takes JSON: examples."""
    return {"requestBody": {"content": {JSON: examples(**by_name)}}}


def audio_form(**by_name: Example) -> dict[str, Any]:
    """Return what FastAPI does not know of a route that takes an `audio_file`."""
    form = files(audio_file=AUDIO) | examples(**by_name)
    return {"requestBody": {"content": {MULTIPART: form}}}


def codes_form(**by_name: Example) -> dict[str, Any]:
    """Return the same of one that takes a `codes_file`."""
    form = files(codes_file=SAFETENSORS) | examples(**by_name)
    return {"requestBody": {"content": {MULTIPART: form}}}
