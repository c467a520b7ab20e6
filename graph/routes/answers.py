"""What the API's description says of answers that several routes give."""

from typing import Any

from graph.errors import ErrorBody

Answers = dict[int | str, dict[str, Any]]

_REASONS = {
    400: "The body is not what its content type says.",
    404: "No such model.",
    413: "The body is too large.",
    415: "The body's content type is another.",
    422: "A field is missing, unknown or out of range.",
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
WAV: dict[str, Any] = {
    "description": "A 16-bit PCM WAV file at the model's sample rate, not normalised.",
    "content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}},
}
