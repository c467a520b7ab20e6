"""POST /v1/generations: all that the language models can do, for one clip or several."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from graph.errors import ApiError
from graph.guards import MULTIPART, TypedRoute
from graph.making import GenerationsAnswer
from graph.ordering import MELODY_STEMS, UPLOADS, ordered
from graph.routes.answers import FILES, HEADERS, TIMING, UPLOAD_ERRORS
from graph.routes.clips import event_answer, growing_answer, whole_answer
from graph.schemas.generation import GenerationsBody
from graph.service import Served

EVENTS = "text/event-stream"


class GenerationsRoute(TypedRoute):
    """Takes JSON, or a form where files come along."""

    wanted = ("application/json", MULTIPART)


def _form_schema() -> dict[str, Any]:
    schema = GenerationsBody.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= {
        "continue_from": file
        | {"description": "Audio to go on from, or codes of /v1/codec/encode; part of duration."},
        "melody": file | {"description": "Audio whose melody is followed, by models that can."},
    }
    return schema


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": GenerationsBody.model_json_schema()},
            MULTIPART: {"schema": _form_schema()},
        },
    }
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One clip is a file; several, or one with its codes, are JSON. Where "
        "events are accepted: `progress` (with `stream`: `audio`, in base64) while clips are made, "
        "then `done`, or `error`.",
        "content": {
            **FILES,
            EVENTS: {"schema": {"type": "string"}},
        },
        "model": GenerationsAnswer,
        "headers": HEADERS
        | TIMING
        | {
            MELODY_STEMS: {
                "description": "With a melody: `separated` where drums and bass were taken out of "
                "it, `whole` where this server follows all of it.",
                "schema": {"enum": ["separated", "whole"]},
            }
        },
    },
    **UPLOAD_ERRORS,
}

router = APIRouter(tags=["generate"], route_class=GenerationsRoute)


@router.post("/v1/generations", response_class=Response, responses=ANSWERS, openapi_extra=BODY)
async def generations(request: Request, service: Served) -> Response:
    """Generate music or sounds from texts, a melody, or the beginning of a clip."""
    body, files = await _read(request)
    events = EVENTS in request.headers.get("accept", "")
    if body.stream:
        _check_stream(body, events)
    order = await ordered(service, request.state.share, request.state.began, body, files)
    request.state.model = order.voice.model.name
    if events:
        return await event_answer(request, service, order, stream=body.stream)
    if body.stream:
        return await growing_answer(service, order)
    return await whole_answer(service, order)


def _check_stream(body: GenerationsBody, events: bool) -> None:
    """Raise ApiError 422 where what is asked for cannot be had while it is made."""
    whole_for = "decoder" if body.decoder == "mbd" else body.output().whole_clip_for
    if whole_for:
        message = (
            f"{whole_for}: what is asked for needs the whole clip; leave out {whole_for} or stream"
        )
        raise ApiError(422, "cannot_stream", message, whole_for)
    if not events and (len(body.texts) * body.n > 1 or body.return_codes):
        message = f"stream: a file is of one clip, without codes; for more, accept {EVENTS}"
        raise ApiError(422, "cannot_stream", message, "stream")


async def _read(request: Request) -> tuple[GenerationsBody, dict[str, bytes]]:
    """Return the body and the files beside it."""
    try:
        if not request.headers["content-type"].startswith(MULTIPART):
            return GenerationsBody.model_validate_json(await request.body()), {}
        async with request.form(max_files=len(UPLOADS), max_fields=64) as form:
            files = await _files(form)
            fields: dict[str, Any] = {key: form[key] for key in form if key not in files}
            if "prompts" in fields:
                fields["prompts"] = form.getlist("prompts")
            return GenerationsBody.model_validate_strings(fields, strict=False), files
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
