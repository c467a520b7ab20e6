"""Builds the tasks of files: encode, decode, diffuse and analyze."""

import asyncio
import secrets

from api.audio import codes_file
from api.audio.output import Output
from api.respond.files import AnalysisRendering, CodesRendering, WavRendering
from api.respond.rendering import FileMaker
from api.schemas.files import AnalyzeBody, DecodeBody, DiffuseBody, EncodeBody
from api.service import Service
from api.tasks.caller import AUDIO_FILE, CODES_FILE, Caller, Files, Parts, probe_upload
from deployments.settings import (
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
)
from engine.params import CodecInfo, Codes
from graph.errors import ApiError
from graph.tasks.audio_files import AnalyzeTask, DecodeTask, DiffuseTask, EncodeTask
from graph.tasks.task import Upload


async def build_encode(service: Service, caller: Caller, body: EncodeBody, files: Files) -> Parts:
    """Build the encoding of a file. Raises ApiError or InvalidAudio."""
    codec = service.registry.find_model(EnCodecSettings, body.model)
    if body.codebooks is not None and body.bandwidth is not None:
        raise ApiError(422, "invalid_value", "give codebooks or bandwidth, not both", "bandwidth")
    upload = await probe_upload(service, files[AUDIO_FILE], AUDIO_FILE)
    # What is above asks no model, so that what it refuses wakes none.
    info = await service.registry.describe_codec(codec)
    task = EncodeTask(
        share=caller.share,
        began=caller.began,
        repeatable=True,
        pipeline=service.pipeline,
        codec=codec,
        info=info,
        upload=upload,
        codebooks=_choose_codebooks(info, body),
    )
    return task, CodesRendering(task=task, layout=body.format)


def _choose_codebooks(info: CodecInfo, body: EncodeBody) -> int:
    """Return how many codebooks to keep. Raises ApiError 422."""
    if body.bandwidth is not None:
        return codes_file.count_codebooks(info, body.bandwidth)
    if body.codebooks is not None and body.codebooks > info.codebooks:
        message = f"codebooks: {body.codebooks}; allowed: from 1 to {info.codebooks}"
        raise ApiError(422, "invalid_value", message, "codebooks")
    return body.codebooks or info.codebooks


async def build_decode(service: Service, caller: Caller, body: DecodeBody, files: Files) -> Parts:
    """Build the decoding of codes. Raises ApiError."""
    codes, samples = await asyncio.to_thread(_read_codes, body, files)
    codec = service.registry.find_model(EnCodecSettings, body.model)
    info = await service.registry.describe_codec(codec)
    codes_file.check_seconds(codes, info, service.limits.max_upload_s)
    task = DecodeTask(
        share=caller.share,
        began=caller.began,
        repeatable=True,
        pipeline=service.pipeline,
        codec=codec,
        info=info,
        codes=codes,
        samples=samples,
    )
    return task, WavRendering(task=task, files=FileMaker(output=Output(), signer=None))


def _read_codes(body: DecodeBody, files: Files) -> tuple[Codes, int | None]:
    """Return the codes and the length of the body or the file. Raises ApiError 422."""
    if (body.codes is None) == (CODES_FILE not in files):
        message = "send either codes, or a codes_file in a form"
        field = "codes" if body.codes is None else CODES_FILE
        raise ApiError(422, "missing_field", f"{field}: {message}", field)
    if body.codes is None:
        codes, samples = codes_file.read_codes(files[CODES_FILE])
        return codes, body.samples or samples
    return codes_file.pack_rows(body.codes), body.samples


async def build_diffuse(service: Service, caller: Caller, body: DiffuseBody, files: Files) -> Parts:
    """Build the decoding of codes, or of a file, by diffusion. Raises ApiError or InvalidAudio."""
    registry, limits = service.registry, service.limits
    diffusion = registry.find_model(DiffusionSettings, body.model)
    codec, samples = registry.get_codec(diffusion), None
    source: Codes | Upload
    if CODES_FILE in files:
        source, samples = await asyncio.to_thread(codes_file.read_codes, files[CODES_FILE])
    else:
        source = await probe_upload(service, files[AUDIO_FILE], AUDIO_FILE)
        codes_file.check_length(source.info.seconds, limits.max_duration_s)
    # What is above asks no model, so that what it refuses wakes none.
    info = await registry.describe_codec(diffusion)
    if isinstance(source, Codes):
        codes_file.check_seconds(source, info, limits.max_duration_s)
    task = DiffuseTask(
        share=caller.share,
        began=caller.began,
        repeatable=body.seed is not None,
        pipeline=service.pipeline,
        diffusion=diffusion,
        codec=codec,
        codec_info=await registry.describe_codec(codec),
        info=info,
        source=source,
        samples=samples,
        drawn_seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
    )
    return task, WavRendering(task=task, files=FileMaker(output=Output(), signer=None))


async def build_analyze(service: Service, caller: Caller, body: AnalyzeBody, files: Files) -> Parts:
    """Build the analysis of a file. Raises ApiError or InvalidAudio."""
    discriminators = service.registry.find_model(DiscriminatorsSettings, body.model)
    upload = await probe_upload(service, files[AUDIO_FILE], AUDIO_FILE)
    task = AnalyzeTask(
        share=caller.share,
        began=caller.began,
        repeatable=True,
        pipeline=service.pipeline,
        discriminators=discriminators,
        info=await service.registry.describe_discriminators(discriminators),
        upload=upload,
    )
    threshold = 0.5 if body.threshold is None else body.threshold
    return task, AnalysisRendering(task=task, threshold=threshold)
