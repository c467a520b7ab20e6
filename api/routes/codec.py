"""POST /v1/codec/encode and /v1/codec/decode: audio to codes and back, by EnCodec."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.guards import UploadRoute
from api.respond.files import SAFETENSORS, CodesAnswer
from api.respond.responses import respond
from api.routes.answers import BINARY, ERRORS, UPLOAD_ERRORS, WAV, Answers
from api.routes.bodies import JsonOrFormRoute, build_from_request, describe_form
from api.routes.examples import AUDIO_FILE, CODES_FILE
from api.service import Served

TO_DECODE = {
    "description": "What these codes sound like.",
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
        "description": "JSON, or a safetensors file with the same as metadata.",
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
