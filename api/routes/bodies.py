"""Reads request bodies, JSON or a form with files, and describes them for OpenAPI."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from api.guards import MULTIPART, TypedRoute, get_content_type
from api.respond.responses import Built
from api.routes.documentation import (
    AUDIO,
    AUDIO_FILE,
    BINARY,
    CODES_FILE,
    IDEMPOTENCY,
    JSON,
    SAFETENSORS,
    build_examples,
    describe_files,
)
from api.service import Service
from api.tasks.caller import Caller
from api.tasks.task_table import TASK_TYPES, TypeName, build_task
from graph.errors import ApiError

Body = TypeVar("Body", bound=BaseModel)
OF_CONTINUE_FROM = ("start", "end", "include_prompt")
NOT_CHOSEN = ("", "blob")
"""The names that browsers give an empty file if the user chose no file."""
MAX_FILES = 2
"""The largest number of files in a form."""
LARGE_BODY = 20_000
"""A JSON body with more bytes than this is validated on a thread."""


class JsonOrFormRoute(TypedRoute):
    """A route that accepts JSON, or a form with files."""

    wanted = ("application/json", MULTIPART)


def build_json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body without files."""
    schema = model.model_json_schema()
    for name in OF_CONTINUE_FROM:
        del schema["properties"][name]
    return schema


FILE_FIELDS = {
    "audio_file": "The audio file: wav, flac, mp3, ogg, opus, m4a or aiff.",
    "codes_file": "A safetensors file from /v1/codec/encode.",
    "voice": "The speech that gets background music.",
    "content": "The audio whose melody the clips follow.",
}
"""The description of each field of files, except the fields of generations."""


def describe_form(
    name: TypeName, *, json_example: Mapping[str, object] | None = None, **by_name: object
) -> dict[str, Any]:
    """Return the OpenAPI description of a form with files, and of its JSON body if any."""
    kind = TASK_TYPES[name]
    schema = kind.body.model_json_schema()
    schema.setdefault("properties", {})
    for upload, needed in kind.uploads.items():
        schema["properties"][upload] = BINARY | {"description": FILE_FIELDS[upload]}
        if needed:
            schema.setdefault("required", []).append(upload)
    types = {one: SAFETENSORS if one == "codes_file" else AUDIO for one in kind.uploads}
    content = {MULTIPART: {"schema": schema} | describe_files(**types) | build_examples(**by_name)}
    if json_example is not None:
        plain = {"schema": kind.body.model_json_schema()} | build_examples(**json_example)
        content = {JSON: plain} | content
    return {
        "parameters": [IDEMPOTENCY],
        "requestBody": {"required": True, "content": content},
    }


def build_form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a body with its files."""
    schema = model.model_json_schema()
    schema["properties"] |= {
        "continue_from": BINARY
        | {"description": "Audio or codes to continue; they count in `duration`."},
        "melody": BINARY | {"description": "The audio whose melody is followed."},
    }
    for name in OF_CONTINUE_FROM:  # a client that sends the default would need the file
        schema["properties"][name].pop("default", None)
    return schema


EXAMPLES: dict[str, dict[str, Any]] = {
    "file": {"prompt": "calm piano, slow jazz", "duration": 2, "format": "mp3"},
    "several_clips": {"prompts": ["calm piano", "rain on a tin roof"], "n": 2, "duration": 1},
    "codes": {"prompt": "calm piano", "duration": 1, "seed": 7, "return_codes": True},
    "finished": {"prompt": "calm piano", "duration": 2, "normalize": "loudness", "fade_out": 0.5},
}
FORM_EXAMPLES = build_examples(
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


def describe_json_or_form(
    model: type[BaseModel], schema: dict[str, Any], **more: object
) -> dict[str, Any]:
    """Return the OpenAPI description of a generation's body, with `more` examples."""
    form = {"schema": build_form_schema(model)} | FORM_EXAMPLES
    kinds = describe_files(continue_from=f"{AUDIO}, {SAFETENSORS}", melody=AUDIO)
    as_json = {"schema": schema} | build_examples(**EXAMPLES, **more)
    return {"required": True, "content": {JSON: as_json, MULTIPART: form | kinds}}


def is_form(request: Request) -> bool:
    """Return whether the body is a form."""
    return get_content_type(request) == MULTIPART


async def read_body(
    request: Request, model: type[Body], uploads: Collection[str]
) -> tuple[Body, dict[str, bytes]]:
    """Read a body, and the files in the fields `uploads`.

    Raises RequestValidationError, ApiError 422.
    """
    if is_form(request):
        fields, files = await read_form(request)
        return validate_form(model, fields, files, uploads), files
    try:
        data = await request.body()
        if len(data) > LARGE_BODY:  # on a thread, to not delay streams
            return await asyncio.to_thread(model.model_validate_json, data), {}
        return model.model_validate_json(data), {}
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def read_form(request: Request) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a form's fields that are not empty, and its files."""
    async with request.form(max_files=MAX_FILES, max_fields=64) as form:
        fields: dict[str, Any] = {k: v for k, v in form.items() if isinstance(v, str) and v}
        if "prompts" in fields:
            fields["prompts"] = form.getlist("prompts")
        files = {
            key: await value.read()
            for key, value in form.multi_items()
            if isinstance(value, UploadFile) and (value.size or value.filename not in NOT_CHOSEN)
        }
    return fields, files


def validate_form(
    model: type[Body], fields: dict[str, Any], files: Collection[str], uploads: Collection[str]
) -> Body:
    """Validate a form. Raises RequestValidationError, ApiError 422."""
    if unknown := next((name for name in files if name not in uploads), None):
        valid = ", ".join(uploads) or "none"
        raise ApiError(422, "unknown_field", f"unknown file {unknown!r}; valid: {valid}", unknown)
    if text := next((name for name in fields if name in uploads), None):
        raise ApiError(422, "invalid_value", f"{text}: must be a file", text)
    try:
        return model.model_validate_strings(fields, strict=False)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def build_from_request(request: Request, service: Service, name: TypeName) -> Built:
    """Read a request's body and build its task. Raises RequestValidationError, ApiError,
    InvalidRequest or InvalidAudio.
    """
    kind = TASK_TYPES[name]
    body, files = await read_body(request, kind.body, kind.uploads)
    return await build_task(service, build_caller(request), name, body, files)


def build_caller(request: Request) -> Caller:
    """Build the caller of a request."""
    return Caller(request.state.share, request.state.began)
