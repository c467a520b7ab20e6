"""POST /generate/music and /generate/audio: text in, a WAV file out."""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Response

from graph.errors import ErrorBody
from graph.guards import JsonRoute
from graph.schemas import GenerateBody
from graph.service import Served, Service
from graph.wav import encode_wav

WAV_ANSWER: dict[str, Any] = {
    "description": "A 16-bit PCM WAV file at the model's sample rate, not normalised.",
    "content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        "x-seed": {"description": "The seed used.", "schema": {"type": "integer"}},
        "x-model": {"description": "The model used.", "schema": {"type": "string"}},
        "x-request-id": {
            "description": "Names this request in the logs.",
            "schema": {"type": "string"},
        },
        "server-timing": {"description": "Milliseconds by stage.", "schema": {"type": "string"}},
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The body is not JSON.",
        404: "No such model.",
        413: "The body is too large.",
        415: "The body's content type is not JSON.",
        422: "A field is missing, unknown or out of range.",
        503: "A model cannot be reached.",
    }.items()
}

router = APIRouter(
    tags=["generate"],
    route_class=JsonRoute,
    default_response_class=Response,
    responses={200: WAV_ANSWER, **ERRORS},
)


@router.post("/generate/music")
async def generate_music(body: GenerateBody, service: Served) -> Response:
    """Generate music from a text."""
    return await _generate("musicgen", body, service)


@router.post("/generate/audio")
async def generate_audio(body: GenerateBody, service: Served) -> Response:
    """Generate a sound effect or an ambience from a text."""
    return await _generate("audiogen", body, service)


async def _generate(kind: str, body: GenerateBody, service: Service) -> Response:
    begun = time.perf_counter()
    model = service.pipeline.pick(kind, body.model)
    params = body.params(await service.pipeline.voice(model), service.limits)
    clip = await service.pipeline.generate(model, params)
    file = await asyncio.to_thread(encode_wav, clip.audio)
    stages = {**clip.seconds, "total": time.perf_counter() - begun}
    headers = {
        "x-seed": str(params.seed),
        "x-model": model.name,
        "server-timing": ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in stages.items()),
    }
    return Response(file, media_type="audio/wav", headers=headers)
