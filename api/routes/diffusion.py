"""POST /v1/mbd/decode and /v1/mbd/regenerate: codes or audio to audio, by multi-band diffusion."""

from fastapi import APIRouter, Request, Response

from api.guards import UploadRoute
from api.respond.responses import respond
from api.routes.answers import FILE_HEADERS, SEED, UPLOAD_ERRORS, WAV
from api.routes.bodies import build_from_request, describe_form
from api.routes.examples import AUDIO_FILE, CODES_FILE
from api.service import Served

SEEDED = WAV | {"headers": SEED | FILE_HEADERS}

router = APIRouter(
    prefix="/v1/mbd",
    tags=["diffusion"],
    route_class=UploadRoute,
    default_response_class=Response,
    responses={200: SEEDED, **UPLOAD_ERRORS},
)


@router.post(
    "/decode",
    openapi_extra=describe_form("diffuse", repeatable={"codes_file": CODES_FILE, "seed": 7}),
)
async def diffuse_codes(request: Request, service: Served) -> Response:
    """Decode codes, finer and slower than their codec, equalised to what it makes of them."""
    built = await build_from_request(request, service, "diffuse")
    return await respond(request, service, built)


@router.post(
    "/regenerate",
    openapi_extra=describe_form("regenerate", repeatable={"audio_file": AUDIO_FILE, "seed": 7}),
)
async def regenerate_audio(request: Request, service: Served) -> Response:
    """Encode a file and decode it by diffusion, at the codec's rate and the file's length."""
    built = await build_from_request(request, service, "regenerate")
    return await respond(request, service, built)
