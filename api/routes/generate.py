"""POST /generate/music and /generate/audio: text in, a WAV file out."""

from fastapi import APIRouter, Request, Response

from api.audio.output import Output
from api.guards import JsonRoute
from api.routes.answers import ERRORS, HEADERS, TIMING, WAV
from api.routes.clips import order_of, whole_answer
from api.routes.examples import json_body
from api.schemas.generation import GenerateBody
from api.service import Served, Service
from deployments.settings import AudioGenSettings, MusicGenSettings, TokenModelSettings

router = APIRouter(
    tags=["generate"],
    route_class=JsonRoute,
    default_response_class=Response,
    responses={200: WAV | {"headers": HEADERS | TIMING}, **ERRORS},
)


@router.post(
    "/generate/music",
    openapi_extra=json_body(
        short={"text": "calm piano over soft strings", "duration": 2},
        repeatable={"text": "slow jazz, brushed drums", "duration": 2, "seed": 7, "cfg_coef": 4},
    ),
)
async def generate_music(request: Request, body: GenerateBody, service: Served) -> Response:
    """Generate music from a text."""
    return await _generate(MusicGenSettings, request, body, service)


@router.post(
    "/generate/audio",
    openapi_extra=json_body(
        short={"text": "thunder over the sea", "duration": 2},
        repeatable={"text": "rain on a tin roof", "duration": 2, "seed": 7, "top_p": 0.9},
    ),
)
async def generate_audio(request: Request, body: GenerateBody, service: Served) -> Response:
    """Generate a sound effect or an ambience from a text."""
    return await _generate(AudioGenSettings, request, body, service)


async def _generate(
    kind: type[TokenModelSettings], request: Request, body: GenerateBody, service: Service
) -> Response:
    voice = await service.registry.voice(service.registry.pick(kind, body.model))
    params = body.params(voice, service.limits)
    order = order_of(request, voice, params, Output(), repeatable=body.repeatable)
    return await whole_answer(service, order)
