"""POST /generate/music and /generate/audio: text in, a WAV file out."""

import asyncio
import time

from fastapi import APIRouter, Response

from deployments.settings import AudioGenSettings, MusicGenSettings, TokenModelSettings
from graph.guards import JsonRoute
from graph.pipeline import ClipRequest
from graph.routes.answers import ERRORS, HEADERS, WAV, timing
from graph.schemas import GenerateBody
from graph.service import Served, Service
from graph.wav import encode_wav

router = APIRouter(
    tags=["generate"],
    route_class=JsonRoute,
    default_response_class=Response,
    responses={200: WAV | {"headers": HEADERS}, **ERRORS},
)


@router.post("/generate/music")
async def generate_music(body: GenerateBody, service: Served) -> Response:
    """Generate music from a text."""
    return await _generate(MusicGenSettings, body, service)


@router.post("/generate/audio")
async def generate_audio(body: GenerateBody, service: Served) -> Response:
    """Generate a sound effect or an ambience from a text."""
    return await _generate(AudioGenSettings, body, service)


async def _generate(
    kind: type[TokenModelSettings], body: GenerateBody, service: Service
) -> Response:
    begun = time.perf_counter()
    model = service.pipeline.pick(kind, body.model)
    params = body.params(await service.pipeline.voice(model), service.limits)
    clip = await service.pipeline.generate(model, ClipRequest(params))
    file = await asyncio.to_thread(encode_wav, clip.audio)
    headers = {
        "x-seed": str(params.seed),
        "x-model": model.name,
        "server-timing": timing(clip.seconds, begun),
    }
    return Response(file, media_type="audio/wav", headers=headers)
