"""Bodies that are JSON, or a form where files come along."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from api.guards import MULTIPART, TypedRoute, content_type
from api.routes.answers import BINARY
from api.routes.examples import AUDIO, AUDIO_FILE, CODES_FILE, JSON, SAFETENSORS, examples, files
from graph.errors import ApiError
from graph.ordering import UPLOADS

Body = TypeVar("Body", bound=BaseModel)
OF_CONTINUE_FROM = ("start", "end", "include_prompt")
NOT_CHOSEN = ("", "blob")
"""Names of an empty file that browsers send where none is chosen."""
KEY, MOST_KEY_CHARS = "idempotency-key", 255
IDEMPOTENCY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Names this request: sent again with the same key, it is not done again, but "
    "waited for, or answered as it was.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MOST_KEY_CHARS},
}


class GenerationsRoute(TypedRoute):
    """Takes either."""

    wanted = ("application/json", MULTIPART)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body that comes without files."""
    schema = model.model_json_schema()
    for name in OF_CONTINUE_FROM:
        del schema["properties"][name]
    return schema


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body with its files."""
    schema = model.model_json_schema()
    schema["properties"] |= {
        "continue_from": BINARY
        | {"description": "Audio to go on from, or codes of /v1/codec/encode; part of duration."},
        "melody": BINARY | {"description": "Audio whose melody is followed, by models that can."},
    }
    for name in OF_CONTINUE_FROM:  # not to be sent by default, which would want the file
        schema["properties"][name].pop("default", None)
    return schema


EXAMPLES: dict[str, dict[str, Any]] = {
    "file": {"prompt": "calm piano, slow jazz", "duration": 2, "format": "mp3"},
    "several_clips": {"prompts": ["calm piano", "rain on a tin roof"], "n": 2, "duration": 1},
    "codes": {"prompt": "calm piano", "duration": 1, "seed": 7, "return_codes": True},
    "finished": {"prompt": "calm piano", "duration": 2, "normalize": "loudness", "fade_out": 0.5},
}
FORM_EXAMPLES = examples(
    melody={"prompt": "brass band", "duration": 2, "melody": AUDIO_FILE},
    go_on={"prompt": "calm piano", "duration": 2, "continue_from": CODES_FILE},
    go_on_from_a_part={
        "prompt": "calm piano",
        "duration": 2,
        "continue_from": AUDIO_FILE,
        "start": 0.2,
        "end": 0.8,
        "include_prompt": False,
    },
)


def json_or_form(model: type[BaseModel], schema: dict[str, Any], **more: object) -> dict[str, Any]:
    """Return what OpenAPI is to say of a body that `read_body` reads, and `more` examples of it."""
    form = {"schema": form_schema(model)} | FORM_EXAMPLES
    kinds = files(continue_from=f"{AUDIO}, {SAFETENSORS}", melody=AUDIO)
    as_json = {"schema": schema} | examples(**EXAMPLES, **more)
    return {"required": True, "content": {JSON: as_json, MULTIPART: form | kinds}}


def idempotency_key(request: Request) -> str | None:
    """Return what names a request, so that it may be sent again. Raises ApiError 400."""
    key = request.headers.get(KEY)
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARS:
        message = f"{KEY}: {len(key)} characters; allowed: 1 to {MOST_KEY_CHARS}"
        raise ApiError(400, "invalid_header", message, KEY)
    return key


def is_form(request: Request) -> bool:
    """Say whether files may come along."""
    return content_type(request) == MULTIPART


async def read_body(
    request: Request, model: type[Body], uploads: Sequence[str] = UPLOADS
) -> tuple[Body, dict[str, bytes]]:
    """Return the body and the files beside it, in these fields.

    Raises RequestValidationError, ApiError 422.
    """
    try:
        if not is_form(request):
            return model.model_validate_json(await request.body()), {}
        async with request.form(max_files=len(uploads), max_fields=64) as form:
            files = await _files(form, uploads)
            fields: dict[str, Any] = {k: v for k, v in form.items() if isinstance(v, str) and v}
            if "prompts" in fields:
                fields["prompts"] = form.getlist("prompts")
            return model.model_validate_strings(fields, strict=False), files
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def _files(form: FormData, uploads: Sequence[str]) -> dict[str, bytes]:
    files = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key not in uploads:
                raise ApiError(
                    422, "unknown_field", f"no file {key!r}; valid: {', '.join(uploads)}", key
                )
            if value.size or value.filename not in NOT_CHOSEN:
                files[key] = await value.read()
        elif key in uploads and value:
            raise ApiError(422, "invalid_value", f"{key}: must be a file", key)
    return files
