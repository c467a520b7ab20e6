"""Builds generations from a body and its uploads, or from parameters of a route."""

from api.audio import codes_file
from api.audio.output import Output
from api.respond.clips import ClipsRendering
from api.respond.rendering import FileMaker
from api.schemas.generation import GenerationsBody
from api.service import Service
from api.tasks.caller import Caller, Files, Parts, probe_upload
from deployments.settings import MusicGenSettings, TokenModelSettings
from engine.params import Codes, GenerationParams
from engine.windows import check_stride
from graph.errors import ApiError
from graph.registry import ModelWithCodec, check_follows_melody
from graph.tasks.generation import AudioPrompt, GenerationTask, check_room
from graph.tasks.task import ClipRequest, Upload

MELODY_STEMS = "x-melody-stems"


async def build_generation(
    service: Service, caller: Caller, body: GenerationsBody, files: Files
) -> Parts:
    """Build the generation of a body. Raises ApiError, InvalidRequest or InvalidAudio."""
    assert body.quality != "auto", "the tier must be chosen before"
    registry, output = service.registry, body.build_output()
    model = registry.find_model(TokenModelSettings, body.model)
    body.check_limits(service.limits)
    diffusion = registry.find_diffusion(model) if body.decoder == "mbd" else None
    melody = await _probe_melody(service, files.get("melody"))
    rate = model.frame_rate
    codes, audio = await _read_prompt(service, rate, body, files.get("continue_from"))
    known = codes.frames if codes else int((audio.end - audio.start) * rate) if audio else 0
    check_room(known, body.count_frames(rate, service.limits), rate)
    # What is above asks no model, so that what it refuses wakes none.
    pair = await registry.get_model_with_codec(model)
    check_stride(pair.language_model, body.extend_stride)
    if melody:
        check_follows_melody(pair, registry)
    params = body.build_params(pair, service.limits, codes)
    headers: dict[str, str] = {"x-quality": body.quality} if body.quality else {}
    if melody:
        headers |= describe_stems(pair)
    task = GenerationTask(
        share=caller.share,
        began=caller.began,
        repeatable=body.repeatable,
        pipeline=service.pipeline,
        pair=pair,
        clips=[ClipRequest(one, diffusion, body.include_prompt) for one in params],
        streamed=body.stream,
        melody=melody,
        prompt=audio,
    )
    return task, ClipsRendering(
        task=task,
        files=FileMaker(output=output, signer=service.signer),
        return_codes=body.return_codes,
        extra_headers=headers,
    )


def build_clip(
    service: Service,
    caller: Caller,
    pair: ModelWithCodec,
    params: GenerationParams,
    output: Output,
    *,
    repeatable: bool,
    streamed: bool,
) -> tuple[GenerationTask, ClipsRendering]:
    """Build the task of one clip from parameters that a route has built."""
    task = GenerationTask(
        share=caller.share,
        began=caller.began,
        repeatable=repeatable,
        pipeline=service.pipeline,
        pair=pair,
        clips=[ClipRequest(params)],
        streamed=streamed,
    )
    files = FileMaker(output=output, signer=service.signer)
    return task, ClipsRendering(task=task, files=files)


def describe_stems(pair: ModelWithCodec) -> dict[str, str]:
    """Return the header that says whether the stems of a melody are separated."""
    assert isinstance(pair.settings, MusicGenSettings)
    return {MELODY_STEMS: "separated" if pair.settings.stem_separation else "whole"}


async def _probe_melody(service: Service, data: bytes | None) -> Upload | None:
    return None if data is None else await probe_upload(service, data, "melody")


async def _read_prompt(
    service: Service, frame_rate: float, body: GenerationsBody, data: bytes | None
) -> tuple[Codes | None, AudioPrompt | None]:
    """Return the codes, or the part of an audio file, that the clips continue."""
    if data is None:
        if {"start", "end", "include_prompt"} & body.model_fields_set:
            message = "start, end and include_prompt need the file continue_from; send it too"
            raise ApiError(422, "missing_field", message, "continue_from")
        return None, None
    if data[8:9] == b"{":  # safetensors: the length of the header, then the header in JSON
        codes, _ = codes_file.read_codes(data)
        start, end = _choose_part(body, codes.frames / frame_rate)
        part = codes.array()[:, int(start * frame_rate) : round(end * frame_rate)]
        return Codes.pack(part), None
    upload = await probe_upload(service, data, "continue_from")
    return None, AudioPrompt(upload, *_choose_part(body, upload.info.seconds))


def _choose_part(body: GenerationsBody, seconds: float) -> tuple[float, float]:
    """Return the start and end of a part in seconds. Raises ApiError 422 if it is empty."""
    start, end = min(body.start, seconds), min(body.end or seconds, seconds)
    if start >= end:
        message = f"start: the part from start to end is empty; the file has {seconds:g} s"
        raise ApiError(422, "invalid_value", message, "start")
    return start, end
