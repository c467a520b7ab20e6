"""Bodies that are JSON, or a form where files come along."""

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from graph.errors import ApiError
from graph.guards import MULTIPART, TypedRoute
from graph.ordering import UPLOADS

Body = TypeVar("Body", bound=BaseModel)
UPLOAD: dict[str, Any] = {"type": "string", "format": "binary"}
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


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body with its files."""
    schema = model.model_json_schema()
    schema["properties"] |= {
        "continue_from": UPLOAD
        | {"description": "Audio to go on from, or codes of /v1/codec/encode; part of duration."},
        "melody": UPLOAD | {"description": "Audio whose melody is followed, by models that can."},
    }
    return schema


def idempotency_key(request: Request) -> str | None:
    """Return what names a request, so that it may be sent again. Raises ApiError 400."""
    key = request.headers.get(KEY)
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARS:
        message = f"{KEY}: {len(key)} characters; allowed: 1 to {MOST_KEY_CHARS}"
        raise ApiError(400, "invalid_header", message, KEY)
    return key


def is_form(request: Request) -> bool:
    """Say whether files may come along."""
    return request.headers["content-type"].startswith(MULTIPART)


async def read_body(request: Request, model: type[Body]) -> tuple[Body, dict[str, bytes]]:
    """Return the body and the files beside it. Raises RequestValidationError, ApiError 422."""
    try:
        if not is_form(request):
            return model.model_validate_json(await request.body()), {}
        async with request.form(max_files=len(UPLOADS), max_fields=64) as form:
            files = await _files(form)
            fields: dict[str, Any] = {key: form[key] for key in form if key not in files}
            if "prompts" in fields:
                fields["prompts"] = form.getlist("prompts")
            return model.model_validate_strings(fields, strict=False), files
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def _files(form: FormData) -> dict[str, bytes]:
    files = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key not in UPLOADS:
                raise ApiError(
                    422, "unknown_field", f"no file {key!r}; valid: {', '.join(UPLOADS)}", key
                )
            files[key] = await value.read()
        elif key in UPLOADS:
            raise ApiError(422, "invalid_value", f"{key}: must be a file", key)
    return files
