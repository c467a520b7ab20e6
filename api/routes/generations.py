"""The routes /v1/generations, /generate/music and /generate/audio, which generate clips."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.audio.output import Output
from api.errors import ErrorBody
from api.guards import JsonRoute
from api.respond.clips import AudioEvent, GenerationsAnswer
from api.respond.rendering import ProgressEvent
from api.respond.responses import EVENTS, Built, accepts_events, refuse_key, respond
from api.routes.bodies import (
    JsonOrFormRoute,
    build_caller,
    build_json_schema,
    describe_json_or_form,
    read_body,
)
from api.routes.documentation import (
    ERRORS,
    FILES,
    HEADERS,
    IDEMPOTENCY,
    TIMING,
    UPLOAD_ERRORS,
    WAV,
    describe_events,
    describe_json_body,
)
from api.schemas.generation import GenerateBody, GenerationsBody
from api.service import Served, Service
from api.tasks.build_generation import MELODY_STEMS, build_clip
from api.tasks.task_table import TASK_TYPES, build_task
from deployments.settings import Role, TokenModelSettings
from graph.errors import ApiError

NAMES = ("progress", "audio", "done", "error")
STREAM = {"prompt": "calm piano", "duration": 2, "stream": True}
BODY: dict[str, Any] = {
    "parameters": [IDEMPOTENCY],
    "requestBody": describe_json_or_form(
        GenerationsBody, build_json_schema(GenerationsBody), stream=STREAM
    ),
}
STEMS_HEADER = {
    MELODY_STEMS: {
        "description": "For requests with a melody: `separated` if drums and bass were removed "
        "from the melody, `whole` if not.",
        "schema": {"enum": ["separated", "whole"]},
    }
}
EVENT_STREAM = {
    EVENTS: describe_events(ProgressEvent, AudioEvent, GenerationsAnswer, ErrorBody, named=NAMES)
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One clip is a file; several clips, or a clip with codes, are JSON. A "
        "request that accepts events gets `progress` (with `stream`: `audio` in base64) while "
        "clips are generated, and then `done` or `error`.",
        "content": {**FILES, **EVENT_STREAM},
        "model": GenerationsAnswer,
        "headers": HEADERS | TIMING | STEMS_HEADER,
    },
    **UPLOAD_ERRORS,
}
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: WAV | {"headers": HEADERS | TIMING},
    **ERRORS,
}

router = APIRouter(tags=["generate"], route_class=JsonOrFormRoute)
simple = APIRouter(
    tags=["generate"],
    route_class=JsonRoute,
    default_response_class=Response,
    responses=FILE_ANSWERS,
)


@router.post("/v1/generations", response_class=Response, responses=ANSWERS, openapi_extra=BODY)
async def create_generations(request: Request, service: Served) -> Response:
    """Generate music or sounds from texts; clips can follow a melody or continue audio."""
    body, files = await read_body(request, GenerationsBody, TASK_TYPES["generation"].uploads)
    if body.stream:
        refuse_key(request)
        _check_stream(body, as_events=accepts_events(request))
    built = await build_task(service, build_caller(request), "generation", body, files)
    return await respond(request, service, built, growing=body.stream)


def _check_stream(body: GenerationsBody, *, as_events: bool) -> None:
    """Check that the answer can be sent while it is generated. Raises ApiError 422."""
    if whole_for := "decoder" if body.decoder == "mbd" else body.whole_clip_for:
        message = f"{whole_for}: this value needs the whole clip; leave out {whole_for} or stream"
        raise ApiError(422, "cannot_stream", message, whole_for)
    if not as_events and (body.return_codes or len(body.texts) * body.n > 1):
        message = f"stream: a file has one clip, without codes; for more, accept {EVENTS}"
        raise ApiError(422, "cannot_stream", message, "stream")


@simple.post(
    "/generate/music",
    openapi_extra=describe_json_body(
        short={"text": "calm piano over soft strings", "duration": 2},
        repeatable={"text": "slow jazz, brushed drums", "duration": 2, "seed": 7, "cfg_coef": 4},
    ),
)
async def generate_music(request: Request, body: GenerateBody, service: Served) -> Response:
    """Generate music from a text."""
    return await _generate_clip("music", request, body, service)


@simple.post(
    "/generate/audio",
    openapi_extra=describe_json_body(
        short={"text": "thunder over the sea", "duration": 2},
        repeatable={"text": "rain on a tin roof", "duration": 2, "seed": 7, "top_p": 0.9},
    ),
)
async def generate_audio(request: Request, body: GenerateBody, service: Served) -> Response:
    """Generate a sound effect or an ambience from a text."""
    return await _generate_clip("sound", request, body, service)


async def _generate_clip(
    role: Role, request: Request, body: GenerateBody, service: Service
) -> Response:
    model = service.registry.find_model(TokenModelSettings, body.model, role=role)
    body.check_limits(service.limits)
    pair = await service.registry.get_model_with_codec(model)
    params = body.build_params(pair, service.limits)
    task, rendering = build_clip(
        service, build_caller(request), pair, params, Output(),
        repeatable=body.repeatable, streamed=False,
    )  # fmt: skip
    return await respond(request, service, Built(task, rendering, body.model_dump_json(), {}))
