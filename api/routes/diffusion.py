"""POST /v1/mbd/decode and /v1/mbd/regenerate: codes or audio to audio, by multi-band diffusion."""

import asyncio
import secrets
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from api.audio import codes_file
from api.audio.file import whole
from api.audio.output import Output
from api.guards import UploadRoute
from api.routes.answers import OF_A_FILE, SAVE_WAV, SEED, UPLOAD_ERRORS, WAV
from api.routes.examples import AUDIO_FILE, CODES_FILE, audio_form, codes_form
from api.service import Served
from deployments.settings import DiffusionSettings
from engine.params import Codes, DiffusionParams, Waveform

SEEDED = WAV | {"headers": SEED | OF_A_FILE}
Seed = Annotated[
    int | None,
    Form(ge=0, le=2**63 - 1, description="Same seed, same audio. Drawn if left out."),
]
Name = Annotated[str | None, Form(description="A name from /v1/models.")]

router = APIRouter(
    prefix="/v1/mbd",
    tags=["diffusion"],
    route_class=UploadRoute,
    default_response_class=Response,
    responses={200: SEEDED, **UPLOAD_ERRORS},
)


@router.post("/decode", openapi_extra=codes_form(repeatable={"codes_file": CODES_FILE, "seed": 7}))
async def diffuse_codes(
    request: Request,
    service: Served,
    codes: Annotated[UploadFile, File(alias="codes_file", description="From /v1/codec/encode.")],
    seed: Seed = None,
    model: Name = None,
) -> Response:
    """Decode codes, finer and slower than their codec, equalised to what it makes of them."""
    chosen = service.registry.pick(DiffusionSettings, model)
    array, samples = codes_file.read(await codes.read())
    info = await service.registry.codec(chosen)
    codes_file.check_seconds(array, info, service.limits.max_duration_s)
    params = DiffusionParams(array, _drawn(seed))
    async with service.charged(request, chosen.name, array.frames / info.frame_rate):
        audio = await service.pipeline.diffused(chosen, params)
    return await _answer(
        chosen, params, Waveform.pack(audio.array()[:, :samples], audio.sample_rate)
    )


@router.post(
    "/regenerate", openapi_extra=audio_form(repeatable={"audio_file": AUDIO_FILE, "seed": 7})
)
async def regenerate_audio(
    request: Request,
    service: Served,
    audio_file: Annotated[UploadFile, File(description="wav, flac, mp3, ogg, opus, m4a or aiff.")],
    seed: Seed = None,
    model: Name = None,
) -> Response:
    """Encode a file and decode it by diffusion, at the codec's rate and the file's length."""
    chosen = service.registry.pick(DiffusionSettings, model)
    codec = service.registry.codec_of(chosen)
    audio = await service.pipeline.read_for(codec, await audio_file.read(), service.limits)
    info = await service.registry.codec(chosen)
    codes = Codes.pack((await service.pipeline.encode(codec, audio)).array()[: info.codebooks])
    codes_file.check_seconds(codes, info, service.limits.max_duration_s)
    params = DiffusionParams(codes, _drawn(seed), equalize=False, samples=audio.samples)
    async with service.charged(request, chosen.name, audio.seconds):
        made = await service.pipeline.diffused(chosen, params)
    return await _answer(chosen, params, made)


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(2**31) if seed is None else seed


async def _answer(model: DiffusionSettings, params: DiffusionParams, audio: Waveform) -> Response:
    file = await asyncio.to_thread(whole, audio, Output())
    headers = SAVE_WAV | {"x-seed": str(params.seed), "x-model": model.name}
    return Response(file.data, media_type="audio/wav", headers=headers)
