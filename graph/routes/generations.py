"""POST /v1/generations: all that the language models can do, for one clip or several."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from deployments.settings import MusicGenSettings, TokenModelSettings
from engine.params import Codes, Waveform
from graph import codes_file
from graph.errors import ApiError
from graph.guards import MULTIPART, TypedRoute
from graph.order import Order
from graph.pipeline import ClipRequest
from graph.registry import Voice
from graph.routes.answers import FILES, HEADERS, TIMING, UPLOAD_ERRORS
from graph.routes.clips import (
    GenerationsAnswer,
    event_answer,
    growing_answer,
    ordered,
    whole_answer,
)
from graph.schemas.generation import GenerationsBody
from graph.service import Served, Service

UPLOADS = ("continue_from", "melody")
MELODY_STEMS = "x-melody-stems"
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
    order = await _order(request, body, files, service)
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


async def _order(
    request: Request, body: GenerationsBody, files: dict[str, bytes], service: Service
) -> Order:
    output = body.output()
    model = service.registry.pick(TokenModelSettings, body.model)
    voice = await service.registry.voice(model)
    body.check(voice, service.limits)
    melody = await _melody(files.get("melody"), voice, service)
    prompt = await _prompt(files.get("continue_from"), body, voice, service)
    wanted = body.params(voice, service.limits, prompt, melody)
    diffusion = service.registry.diffusion_of(model) if body.decoder == "mbd" else None
    headers = {}
    if melody:
        assert isinstance(model, MusicGenSettings)
        headers[MELODY_STEMS] = "separated" if model.stem_separation else "whole"
    clips = [ClipRequest(params, diffusion, body.include_prompt) for params in wanted]
    return ordered(
        request,
        voice,
        clips,
        output,
        return_codes=body.return_codes,
        repeatable=body.repeatable,
        headers=headers,
    )


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


async def _melody(data: bytes | None, voice: Voice, service: Service) -> Waveform | None:
    if data is None:
        return None
    if not voice.language_model.melody:
        able = ", ".join(await service.registry.melody_models()) or "none that is configured"
        message = f"melody: {voice.model.name!r} follows none; models that do: {able}"
        raise ApiError(422, "invalid_value", message, "melody")
    rate = voice.language_model.sample_rate
    return await service.pipeline.read(data, service.limits, rate, 1, "melody")


async def _prompt(
    data: bytes | None, body: GenerationsBody, voice: Voice, service: Service
) -> Codes | None:
    """Return the codes to go on from: of a file of codes, or of audio between start and end."""
    if data is None:
        if {"start", "end", "include_prompt"} & body.model_fields_set:
            message = "start, end and include_prompt belong to continue_from; send it along"
            raise ApiError(422, "missing_field", message, "continue_from")
        return None
    if data[8:9] == b"{":  # safetensors begins with the length of a JSON head
        codes, _ = codes_file.read(data)
        first, last = _part(body, voice.codec.frame_rate, codes.frames)
        return Codes.pack(codes.array()[:, first:last])
    codec = service.registry.codec_of(voice.model)
    audio = await service.pipeline.read_for(codec, data, service.limits, "continue_from")
    first, last = _part(body, audio.sample_rate, audio.samples)
    part = Waveform.pack(audio.array()[:, first:last], audio.sample_rate)
    codes = await service.pipeline.encode(codec, part)
    return Codes.pack(codes.array()[: voice.language_model.codebooks])


def _part(body: GenerationsBody, rate: float, total: int) -> tuple[int, int]:
    """Return where start and end lie in so many frames or samples. Raises ApiError 422."""
    first = int(body.start * rate)
    last = total if body.end is None else min(int(body.end * rate), total)
    if first >= last:
        message = f"start: nothing lies between start and end; the file has {total / rate:g} s"
        raise ApiError(422, "invalid_value", message, "start")
    return first, last
