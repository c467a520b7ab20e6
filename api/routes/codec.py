"""POST /v1/codec/encode and /v1/codec/decode: audio to codes and back, by EnCodec."""

import asyncio
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile as Uploaded

from api.audio import codes_file
from api.audio.codes_file import check_seconds, codebooks_at
from api.audio.file import whole
from api.audio.output import Output
from api.guards import MULTIPART, TypedRoute, UploadRoute, content_type, no_unknown_fields
from api.routes.answers import BINARY, ERRORS, SAVE_WAV, UPLOAD_ERRORS, WAV
from api.routes.examples import (
    AUDIO_FILE,
    CODES_FILE,
    JSON,
    SAFETENSORS,
    audio_form,
    examples,
    files,
)
from api.schemas.base import WHOLE, RequestModel
from api.service import Served
from deployments.settings import EnCodecSettings
from engine.params import CodecInfo, Codes, Waveform
from graph.errors import ApiError


class CodesAnswer(BaseModel):
    """A file's codes."""

    model: str
    codes: list[list[int]]
    """[codebooks][frames]."""
    codebooks: int
    frames: int
    frame_rate: float
    """Frames a second."""
    sample_rate: int
    channels: int
    samples: int
    """A channel, at that rate; decoding with it gives the file's own length back."""


Code = Annotated[int, Field(ge=0, lt=codes_file.MOST), WHOLE]


class DecodeBody(RequestModel):
    """Codes to decode."""

    codes: Annotated[list[list[Code]], Field(description="[codebooks][frames]", min_length=1)]
    samples: Annotated[
        int | None,
        Field(ge=1, description="Samples to keep; by default all of the frames'."),
        WHOLE,
    ] = None
    model: Annotated[str | None, Field(description="A name from /v1/models.")] = None


class DecodeRoute(TypedRoute):
    """Takes JSON, or a form with a safetensors file."""

    wanted = ("application/json", MULTIPART)


TO_DECODE = {
    "description": "What these codes sound like.",
    "operationId": "decode_codes",
    "requestBody": {
        "codes": "$response.body#/codes",
        "samples": "$response.body#/samples",
        "model": "$response.body#/model",
    },
}

encoding = APIRouter(prefix="/v1/codec", tags=["codec"], route_class=UploadRoute)
decoding = APIRouter(prefix="/v1/codec", tags=["codec"], route_class=DecodeRoute)


@encoding.post(
    "/encode",
    response_model=CodesAnswer,
    responses={
        200: {
            "description": "JSON, or a safetensors file with the same as metadata.",
            "content": {SAFETENSORS: {"schema": BINARY}},
            "links": {"decode": TO_DECODE},
        },
        **UPLOAD_ERRORS,
    },
    openapi_extra=audio_form(
        all_codebooks={"audio_file": AUDIO_FILE},
        fewer_in_a_file={"audio_file": AUDIO_FILE, "codebooks": 2, "format": "safetensors"},
    ),
)
async def encode_audio(
    request: Request,
    service: Served,
    audio_file: Annotated[UploadFile, File(description="wav, flac, mp3, ogg, opus, m4a or aiff.")],
    codebooks: Annotated[int | None, Form(ge=1, description="Keep the first so many.")] = None,
    bandwidth: Annotated[
        float | None, Form(gt=0, le=1000, allow_inf_nan=False, description="The same in kbit/s.")
    ] = None,
    layout: Annotated[Literal["json", "safetensors"], Form(alias="format")] = "json",
    model: Annotated[str | None, Form(description="A name from /v1/models.")] = None,
) -> Response:
    """Encode a file, resampled to the codec's rate and channels."""
    chosen = service.registry.pick(EnCodecSettings, model)
    info = await service.registry.codec(chosen)
    kept = _codebooks(info, codebooks, bandwidth)
    audio = await service.pipeline.read_for(chosen, await audio_file.read(), service.limits)
    async with service.charged(request, chosen.name, audio.seconds):
        made = await service.pipeline.encode(chosen, audio)
    codes = Codes.pack(made.array()[:kept])
    if layout == "safetensors":
        file = codes_file.write(codes, info, audio.samples, chosen.name)
        return Response(file, media_type=SAFETENSORS)
    described = await asyncio.to_thread(_describe, chosen.name, codes, info, audio.samples)
    return Response(described, media_type="application/json")


def _describe(model: str, codes: Codes, codec: CodecInfo, samples: int) -> str:
    """Return the answer's JSON."""
    answer = CodesAnswer(
        model=model,
        codes=codes.array().tolist(),
        codebooks=codes.codebooks,
        frames=codes.frames,
        frame_rate=codec.frame_rate,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        samples=samples,
    )
    return answer.model_dump_json()


def _codebooks(info: CodecInfo, codebooks: int | None, bandwidth: float | None) -> int:
    """Return how many to keep. Raises ApiError 422 where the codec has no such bandwidth."""
    if codebooks is not None and bandwidth is not None:
        raise ApiError(422, "invalid_value", "give codebooks or bandwidth, not both", "bandwidth")
    if bandwidth is not None:
        return codebooks_at(info, bandwidth)
    if codebooks is not None and not 1 <= codebooks <= info.codebooks:
        message = f"codebooks: {codebooks}; allowed: from 1 to {info.codebooks}"
        raise ApiError(422, "invalid_value", message, "codebooks")
    return codebooks or info.codebooks


FORM: dict[str, Any] = {
    "type": "object",
    "required": ["codes_file"],
    "properties": {
        "codes_file": {"type": "string", "format": "binary", "description": "From encode."},
        "model": {"type": "string", "description": "A name from /v1/models."},
    },
}
DECODE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": DecodeBody.model_json_schema()}
            | examples(two_codebooks={"codes": [[1, 2, 3, 4], [5, 6, 7, 8]]}),
            MULTIPART: {"schema": FORM}
            | files(codes_file=SAFETENSORS)
            | examples(file={"codes_file": CODES_FILE}),
        },
    }
}


@decoding.post(
    "/decode",
    response_class=Response,
    responses={200: WAV, **ERRORS},
    openapi_extra=DECODE_BODY,
)
async def decode_codes(request: Request, service: Served) -> Response:
    """Decode codes, as JSON or as the safetensors file that encode gives, to a WAV file."""
    read = _form if content_type(request) == MULTIPART else _json
    codes, samples, model = await read(request)
    chosen = service.registry.pick(EnCodecSettings, model)
    info = await service.registry.codec(chosen)
    check_seconds(codes, info, service.limits.max_upload_s)
    async with service.charged(request, chosen.name, codes.frames / info.frame_rate):
        audio = await service.pipeline.decode(chosen, codes)
    if samples is not None:
        audio = Waveform.pack(audio.array()[:, :samples], audio.sample_rate)
    file = await asyncio.to_thread(whole, audio, Output())
    headers = SAVE_WAV | {"x-model": chosen.name}
    return Response(file.data, media_type="audio/wav", headers=headers)


async def _json(request: Request) -> tuple[Codes, int | None, str | None]:
    try:
        # Long codes take a while: a thread of its own, so that streams go on.
        body = await asyncio.to_thread(DecodeBody.model_validate_json, await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    if len({len(row) for row in body.codes}) > 1:
        message = "codes: every codebook must have as many frames"
        raise ApiError(422, "invalid_codes", message, "codes")
    return (
        codes_file.pack(np.array(body.codes, np.int64)),
        body.samples,
        body.model,
    )


async def _form(request: Request) -> tuple[Codes, int | None, str | None]:
    async with request.form(max_files=1, max_fields=1) as form:
        no_unknown_fields(form, FORM["properties"])
        file, model = form.get("codes_file"), form.get("model")
        if not isinstance(file, Uploaded) or isinstance(model, Uploaded):
            raise ApiError(422, "missing_field", "codes_file: a file is needed", "codes_file")
        codes, samples = codes_file.read(await file.read())
        return codes, samples, model or None
