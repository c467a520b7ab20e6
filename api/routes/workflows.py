"""/v1/workflows: songs, podcasts, ambiences and style transfers, composed of several clips."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from api.guards import MULTIPART, JsonRoute, UploadRoute
from api.routes.answers import BINARY, ERRORS, EVENTS, HEADERS, UPLOAD_ERRORS, Answers, events
from api.routes.bodies import GenerationsRoute, read_body
from api.routes.clips import charged_events, kept_answer
from api.routes.examples import AUDIO, AUDIO_FILE, JSON, examples, files, json_body
from api.schemas.workflows import (
    AmbienceBody,
    PodcastBody,
    SongBody,
    StyleTransferBody,
    WorkflowBody,
)
from api.service import Served, Service
from api.streams import event
from graph.cache import Answer
from graph.calls import last
from graph.errors import ApiError, ErrorBody, body_of
from graph.jobs.jobs import fingerprint
from graph.workflows.ambience import plan_ambience
from graph.workflows.making import WorkflowAnswer, WorkflowProgress, made
from graph.workflows.plan import Plan
from graph.workflows.podcast import VOICE, plan_podcast
from graph.workflows.song import plan_song
from graph.workflows.style_transfer import CONTENT, plan_style_transfer

NAMES = ("progress", "done", "error")
ANSWERED: dict[str, Any] = {
    "model": WorkflowAnswer,
    "description": "A mix and its stems, files in base64. Where events are accepted: `progress` "
    "while they are made, then `done`, or `error`.",
    "content": {EVENTS: events(WorkflowProgress, WorkflowAnswer, ErrorBody, named=NAMES)},
    "headers": {k: v for k, v in HEADERS.items() if k != "content-disposition"},
}
OF_JSON: Answers = {200: ANSWERED, **ERRORS}
OF_FORMS: Answers = {200: ANSWERED, **UPLOAD_ERRORS}
SONG = json_body(
    one_section={"sections": [{"name": "theme", "prompt": "calm piano", "bars": 1}], "tempo": 240},
    produced={
        "sections": [
            {"name": "intro", "prompt": "calm piano", "bars": 1},
            {"name": "drop", "prompt": "fast drums and bass", "seconds": 1},
        ],
        "key": "A minor",
        "tempo": 240,
        "effects": [{"prompt": "thunder", "at": 0.5, "duration": 1, "gain_db": -9}],
        "format": "mp3",
        "seed": 7,
    },
)
AMBIENCE = json_body(
    environment={"environment": "ocean", "duration": 2, "seed": 7},
    prompt={"prompt": "rain on a tin roof", "duration": 2, "format": "flac"},
)
PODCAST_SHORT = {"theme": "calm piano", "intro": 1, "outro": 1, "transitions": 1}
PODCAST_EXAMPLES = examples(music=PODCAST_SHORT)


def _form(body: type[WorkflowBody], field: str, description: str, *, needed: bool) -> Any:
    """Return a form's schema, of a body and a file beside it."""
    schema = body.model_json_schema()
    schema["properties"][field] = BINARY | {"description": description}
    if needed:
        schema["required"].append(field)
    return schema


PODCAST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PodcastBody.model_json_schema()} | PODCAST_EXAMPLES,
            MULTIPART: {
                "schema": _form(PodcastBody, VOICE, "Speech, to lay music under.", needed=False)
            }
            | files(**{VOICE: AUDIO})
            | examples(voice=PODCAST_SHORT | {VOICE: AUDIO_FILE}),
        },
    }
}
STYLE_TRANSFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART: {
                "schema": _form(
                    StyleTransferBody, CONTENT, "Audio whose melody is followed.", needed=True
                )
            }
            | files(**{CONTENT: AUDIO})
            | examples(file={CONTENT: AUDIO_FILE, "style": "brass band"}),
        },
    }
}

_routed: dict[str, Any] = {"prefix": "/v1/workflows", "tags": ["workflows"]}
of_json = APIRouter(route_class=JsonRoute, responses=OF_JSON, **_routed)
of_both = APIRouter(route_class=GenerationsRoute, responses=OF_FORMS, **_routed)
of_forms = APIRouter(route_class=UploadRoute, responses=OF_FORMS, **_routed)


@of_json.post("/song", response_class=Response, openapi_extra=SONG)
async def create_song(request: Request, body: SongBody, service: Served) -> Response:
    """Make a song of sections that go on from each other, with sound effects laid over."""
    asked = fingerprint(body.model_dump_json(), {})
    state = request.state
    return await _answer(
        request, service, await plan_song(service, state.share, state.began, body, asked)
    )


@of_json.post("/ambience", response_class=Response, openapi_extra=AMBIENCE)
async def create_ambience(request: Request, body: AmbienceBody, service: Served) -> Response:
    """Make an ambience that goes round without a seam."""
    asked = fingerprint(body.model_dump_json(), {})
    state = request.state
    return await _answer(
        request, service, await plan_ambience(service, state.share, state.began, body, asked)
    )


@of_both.post("/podcast", response_class=Response, openapi_extra=PODCAST)
async def create_podcast(request: Request, service: Served) -> Response:
    """Make a podcast's intro, transitions and outro, and music that gives way to its voice."""
    body, uploads = await read_body(request, PodcastBody, (VOICE,))
    asked = await asyncio.to_thread(fingerprint, body.model_dump_json(), uploads)
    state, voice = request.state, uploads.get(VOICE)
    plan = await plan_podcast(service, state.share, state.began, body, asked, voice)
    return await _answer(request, service, plan)


@of_forms.post("/style-transfer", response_class=Response, openapi_extra=STYLE_TRANSFER)
async def transfer_style(request: Request, service: Served) -> Response:
    """Play a file's melody in another style, by a model that follows melodies."""
    body, uploads = await read_body(request, StyleTransferBody, (CONTENT,))
    if CONTENT not in uploads:
        raise ApiError(422, "missing_field", f"{CONTENT}: a file is needed", CONTENT)
    asked = await asyncio.to_thread(fingerprint, body.model_dump_json(), uploads)
    state, content = request.state, uploads[CONTENT]
    plan = await plan_style_transfer(service, state.share, state.began, body, asked, content)
    return await _answer(request, service, plan)


async def _answer(request: Request, service: Service, plan: Plan) -> Response:
    """Answer as a request accepts it: with events, or whole, kept where it is repeatable."""
    request.state.model = plan.voice.model.name
    if EVENTS in request.headers.get("accept", ""):
        parts, headers = _events(service, plan), _headers(service, plan)
        return await charged_events(
            plan.charged(service),
            parts,
            headers,
            lambda error: event("error", body_of(request, error)),
        )
    if plan.repeatable and service.limits.cache_bytes:
        model, key = plan.voice.model.name, plan.key()
        return await kept_answer(service, model, key, lambda: _whole(service, plan))
    answer = await _whole(service, plan)
    return Response(answer.body, media_type=answer.media_type, headers=answer.headers)


async def _whole(service: Service, plan: Plan) -> Answer:
    async with plan.charged(service):
        answer = await last(made(service, plan))
    assert isinstance(answer, WorkflowAnswer)
    body = await asyncio.to_thread(lambda: answer.model_dump_json(exclude_none=True).encode())
    return Answer(body, JSON, _headers(service, plan))


async def _events(service: Service, plan: Plan) -> AsyncGenerator[bytes, None]:
    async with aclosing(made(service, plan)) as told:
        async for one in told:
            name = "progress" if isinstance(one, WorkflowProgress) else "done"
            yield await asyncio.to_thread(event, name, one)


def _headers(service: Service, plan: Plan) -> dict[str, str]:
    """Return what an answer says of itself."""
    signed = service.signer and service.signer.takes(plan.output)
    named = {"x-seed": str(plan.seed), "x-model": plan.voice.model.name, **plan.headers}
    return named | ({"x-content-credentials": "signed"} if signed else {})
