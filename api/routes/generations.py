"""POST /v1/generations: all that the language models can do, for one clip or several."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.quality import tiered
from api.routes.answers import EVENTS, FILES, HEADERS, TIMING, UPLOAD_ERRORS, events
from api.routes.bodies import (
    IDEMPOTENCY,
    KEY,
    GenerationsRoute,
    idempotency_key,
    json_or_form,
    json_schema,
    read_body,
)
from api.routes.clips import (
    AudioEvent,
    ProgressEvent,
    event_answer,
    growing_answer,
    once_answer,
    whole_answer,
)
from api.schemas.generation import GenerationsBody
from api.service import Served
from graph.errors import ApiError, ErrorBody
from graph.making import GenerationsAnswer
from graph.ordering import MELODY_STEMS, ordered

NAMES = ("progress", "audio", "done", "error")

STREAM = {"prompt": "calm piano", "duration": 2, "stream": True}
BODY: dict[str, Any] = {
    "parameters": [IDEMPOTENCY],
    "requestBody": json_or_form(GenerationsBody, json_schema(GenerationsBody), stream=STREAM),
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One clip is a file; several, or one with its codes, are JSON. Where "
        "events are accepted: `progress` (with `stream`: `audio`, in base64) while clips are made, "
        "then `done`, or `error`.",
        "content": {
            **FILES,
            EVENTS: events(ProgressEvent, AudioEvent, GenerationsAnswer, ErrorBody, named=NAMES),
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
async def create_generations(request: Request, service: Served) -> Response:
    """Generate music or sounds from texts, a melody, or the beginning of a clip."""
    body, files = await read_body(request, GenerationsBody)
    as_events = EVENTS in request.headers.get("accept", "")
    key = idempotency_key(request)
    wanted = await tiered(service, body, files)
    if body.stream:
        _check_stream(wanted, as_events)
    if key and (body.stream or as_events):
        message = f"{KEY}: only what is answered whole can be asked for again; leave it out"
        raise ApiError(422, "cannot_stream", message, KEY)
    order = await ordered(service, request.state.share, request.state.began, wanted, files)
    request.state.model = order.voice.model.name
    if as_events:
        return await event_answer(request, service, order, stream=body.stream)
    if body.stream:
        return await growing_answer(service, order)
    if key:
        return await once_answer(service, order, key, body.model_dump_json(), files)
    return await whole_answer(service, order)


def _check_stream(body: GenerationsBody, as_events: bool) -> None:
    """Raise ApiError 422 where what is asked for cannot be had while it is made."""
    whole_for = "decoder" if body.decoder == "mbd" else body.output().whole_clip_for
    if whole_for:
        message = (
            f"{whole_for}: what is asked for needs the whole clip; leave out {whole_for} or stream"
        )
        raise ApiError(422, "cannot_stream", message, whole_for)
    if not as_events and (len(body.texts) * body.n > 1 or body.return_codes):
        message = f"stream: a file is of one clip, without codes; for more, accept {EVENTS}"
        raise ApiError(422, "cannot_stream", message, "stream")
