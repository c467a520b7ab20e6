"""The routes /v1/workflows, which build songs, podcasts, ambiences and style transfers."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.errors import ErrorBody
from api.guards import JsonRoute, UploadRoute
from api.respond.responses import EVENTS, respond
from api.respond.workflows import WorkflowAnswer, WorkflowProgress
from api.routes.bodies import (
    JsonOrFormRoute,
    build_caller,
    build_from_request,
    describe_form,
)
from api.routes.documentation import (
    AUDIO_FILE,
    ERRORS,
    HEADERS,
    UPLOAD_ERRORS,
    Answers,
    describe_events,
    describe_json_body,
)
from api.schemas.workflows import AmbienceBody, SongBody
from api.service import Served
from api.tasks.task_table import build_task
from graph.workflows.podcast import VOICE
from graph.workflows.style_transfer import CONTENT

NAMES = ("progress", "done", "error")
ANSWERED: dict[str, Any] = {
    "model": WorkflowAnswer,
    "description": "The mix and its stems as files in base64. A request that accepts events gets "
    "`progress` while they are generated, and then `done` or `error`.",
    "content": {EVENTS: describe_events(WorkflowProgress, WorkflowAnswer, ErrorBody, named=NAMES)},
    "headers": {k: v for k, v in HEADERS.items() if k != "content-disposition"},
}
SONG = describe_json_body(
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
AMBIENCE = describe_json_body(
    environment={"environment": "ocean", "duration": 2, "seed": 7},
    prompt={"prompt": "rain on a tin roof", "duration": 2, "format": "flac"},
)
PODCAST_SHORT = {"theme": "calm piano", "intro": 1, "outro": 1, "transitions": 1}
PODCAST = describe_form(
    "podcast",
    json_example={"music": PODCAST_SHORT},
    voice=PODCAST_SHORT | {VOICE: AUDIO_FILE},
)
STYLE_TRANSFER = describe_form("style_transfer", file={CONTENT: AUDIO_FILE, "style": "brass band"})

_shared: dict[str, Any] = {"prefix": "/v1/workflows", "tags": ["workflows"]}
_with_files: Answers = {200: ANSWERED, **UPLOAD_ERRORS}
of_json = APIRouter(route_class=JsonRoute, responses={200: ANSWERED, **ERRORS}, **_shared)
of_both = APIRouter(route_class=JsonOrFormRoute, responses=_with_files, **_shared)
of_forms = APIRouter(route_class=UploadRoute, responses=_with_files, **_shared)


@of_json.post("/song", response_class=Response, openapi_extra=SONG)
async def create_song(request: Request, body: SongBody, service: Served) -> Response:
    """Generate a song of sections that continue each other, with sound effects."""
    built = await build_task(service, build_caller(request), "song", body, {})
    return await respond(request, service, built)


@of_json.post("/ambience", response_class=Response, openapi_extra=AMBIENCE)
async def create_ambience(request: Request, body: AmbienceBody, service: Served) -> Response:
    """Generate an ambience that can be repeated as a loop."""
    built = await build_task(service, build_caller(request), "ambience", body, {})
    return await respond(request, service, built)


@of_both.post("/podcast", response_class=Response, openapi_extra=PODCAST)
async def create_podcast(request: Request, service: Served) -> Response:
    """Generate the intro, transitions and outro of a podcast, and music under its voice."""
    built = await build_from_request(request, service, "podcast")
    return await respond(request, service, built)


@of_forms.post("/style-transfer", response_class=Response, openapi_extra=STYLE_TRANSFER)
async def transfer_style(request: Request, service: Served) -> Response:
    """Play the melody of a file in another style; it needs a model that follows melodies."""
    built = await build_from_request(request, service, "style_transfer")
    return await respond(request, service, built)
