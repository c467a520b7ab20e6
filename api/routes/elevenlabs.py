"""POST /v1/sound-generation, as ElevenLabs' clients call it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.audio.output import FORMATS
from api.guards import JsonRoute
from api.routes.answers import ERRORS, FILES, HEADERS
from api.routes.clips import growing_answer, order_of
from api.routes.examples import json_body
from api.schemas.compatible import SoundBody, output_named
from api.service import Served
from deployments.settings import AudioGenSettings, TokenModelSettings

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file while it is made.",
        "content": FILES,
        "headers": HEADERS,
    },
    **ERRORS,
}
OutputFormat = Annotated[
    str,
    Query(
        description="Format, rate and, of mp3, aac and opus, kbit/s.",
        examples=["mp3_44100_128", "pcm_16000"],
        json_schema_extra={"pattern": f"^({'|'.join(FORMATS)})_[0-9]{{1,6}}(_[0-9]{{1,6}})?$"},
    ),
]

router = APIRouter(tags=["familiar"], route_class=JsonRoute)


EXAMPLES = json_body(
    short={"text": "thunder over the sea", "duration_seconds": 2},
    closer={"text": "a dog barks twice", "duration_seconds": 1.5, "prompt_influence": 0.6},
)


@router.post(
    "/v1/sound-generation", response_class=Response, responses=ANSWERS, openapi_extra=EXAMPLES
)
async def create_sound(
    request: Request,
    body: SoundBody,
    service: Served,
    output_format: OutputFormat = "mp3_44100_128",
) -> Response:
    """Generate a sound effect; with `model_id`, by any language model."""
    output = output_named(output_format)
    kind = TokenModelSettings if body.model_id else AudioGenSettings
    voice = await service.registry.voice(service.registry.pick(kind, body.model_id))
    params = body.params(voice, service.limits)
    return await growing_answer(service, order_of(request, voice, params, output))
