"""The routes /v1/codec/..., /v1/mbd/... and /analyze, which process audio files and codes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.guards import UploadRoute
from api.respond.files import SAFETENSORS, AnalyzeAnswer, CodesAnswer
from api.respond.responses import respond
from api.routes.bodies import (
    JsonOrFormRoute,
    build_caller,
    build_from_request,
    describe_form,
    read_body,
)
from api.routes.documentation import (
    AUDIO_FILE,
    BINARY,
    CODES_FILE,
    ERRORS,
    FILE_HEADERS,
    SEED,
    UPLOAD_ERRORS,
    WAV,
    Answers,
)
from api.schemas.files import AnalyzeBody
from api.service import Served
from api.tasks.task_table import TASK_TYPES, build_task

TO_DECODE = {
    "description": "The audio of these codes.",
    "operationId": "decode_codes",
    "requestBody": {
        "codes": "$response.body#/codes",
        "samples": "$response.body#/samples",
        "model": "$response.body#/model",
    },
}
ENCODED: Answers = {
    200: {
        "model": CodesAnswer,
        "description": "The codes as JSON, or as a safetensors file with equal metadata.",
        "content": {SAFETENSORS: {"schema": BINARY}},
        "links": {"decode": TO_DECODE},
    },
    **UPLOAD_ERRORS,
}
ENCODE_BODY: dict[str, Any] = describe_form(
    "encode",
    all_codebooks={"audio_file": AUDIO_FILE},
    fewer_in_a_file={"audio_file": AUDIO_FILE, "codebooks": 2, "format": "safetensors"},
)
DECODE_BODY: dict[str, Any] = describe_form(
    "decode",
    json_example={"two_codebooks": {"codes": [[1, 2, 3, 4], [5, 6, 7, 8]]}},
    file={"codes_file": CODES_FILE},
)

encoding = APIRouter(prefix="/v1/codec", tags=["codec"], route_class=UploadRoute)
decoding = APIRouter(prefix="/v1/codec", tags=["codec"], route_class=JsonOrFormRoute)


@encoding.post(
    "/encode",
    response_class=Response,
    responses=ENCODED,
    openapi_extra=ENCODE_BODY,
)
async def encode_audio(request: Request, service: Served) -> Response:
    """Encode a file, resampled to the codec's rate and channels."""
    built = await build_from_request(request, service, "encode")
    return await respond(request, service, built)


@decoding.post(
    "/decode",
    response_class=Response,
    responses={200: WAV, **ERRORS},
    openapi_extra=DECODE_BODY,
)
async def decode_codes(request: Request, service: Served) -> Response:
    """Decode codes, as JSON or as the safetensors file that encode gives, to a WAV file."""
    built = await build_from_request(request, service, "decode")
    return await respond(request, service, built)


SEEDED = WAV | {"headers": SEED | FILE_HEADERS}

diffusing = APIRouter(
    prefix="/v1/mbd",
    tags=["diffusion"],
    route_class=UploadRoute,
    default_response_class=Response,
    responses={200: SEEDED, **UPLOAD_ERRORS},
)


@diffusing.post(
    "/decode",
    openapi_extra=describe_form("diffuse", repeatable={"codes_file": CODES_FILE, "seed": 7}),
)
async def diffuse_codes(request: Request, service: Served) -> Response:
    """Decode codes by diffusion: slower and better than the codec, equalised to its output."""
    built = await build_from_request(request, service, "diffuse")
    return await respond(request, service, built)


@diffusing.post(
    "/regenerate",
    openapi_extra=describe_form("regenerate", repeatable={"audio_file": AUDIO_FILE, "seed": 7}),
)
async def regenerate_audio(request: Request, service: Served) -> Response:
    """Encode a file and decode it by diffusion, at the codec's rate and the file's length."""
    built = await build_from_request(request, service, "regenerate")
    return await respond(request, service, built)


ANSWERS: Answers = {200: {"model": AnalyzeAnswer}, **UPLOAD_ERRORS}

analyzing = APIRouter(tags=["analyze"], route_class=UploadRoute, responses=ANSWERS)


@analyzing.post(
    "/analyze",
    response_class=Response,
    openapi_extra=describe_form("analyze", file={"audio_file": AUDIO_FILE}),
)
async def analyze_audio(
    request: Request,
    service: Served,
    threshold: Annotated[
        float | None,
        Query(ge=0, le=1, description="It overrides the field of the form; the default is 0.5."),
    ] = None,
) -> Response:
    """Score an audio file with the discriminators MPD, MSD and MS-STFT-D."""
    body, files = await read_body(request, AnalyzeBody, TASK_TYPES["analyze"].uploads)
    if threshold is not None:
        body = body.model_copy(update={"threshold": threshold})
    built = await build_task(service, build_caller(request), "analyze", body, files)
    return await respond(request, service, built)
