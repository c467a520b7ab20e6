"""What a body and the files beside it come to: clips to make."""

from collections.abc import Mapping

from api.audio import codes_file
from api.schemas.generation import GenerationsBody
from api.service import Service
from deployments.accounts import Share
from deployments.settings import MusicGenSettings, TokenModelSettings
from engine.params import Codes, Waveform
from graph.errors import ApiError
from graph.order import Order
from graph.pipeline import ClipRequest
from graph.registry import Voice

UPLOADS = ("continue_from", "melody")
MELODY_STEMS = "x-melody-stems"


async def ordered(
    service: Service, share: Share, began: float, body: GenerationsBody, files: Mapping[str, bytes]
) -> Order:
    """Return what was asked for at `began`, of `time.perf_counter`.

    Raises ApiError, InvalidRequest or InvalidAudio where it cannot be had.
    """
    output = body.output()
    model = service.registry.pick(TokenModelSettings, body.model)
    voice = await service.registry.voice(model)
    body.check(voice, service.limits)
    melody = await _melody(files.get("melody"), voice, service)
    prompt = await _prompt(files.get("continue_from"), body, voice, service)
    wanted = body.params(voice, service.limits, prompt, melody)
    diffusion = service.registry.diffusion_of(model) if body.decoder == "mbd" else None
    assert body.quality != "auto", "it was to be chosen before"
    headers: dict[str, str] = {"x-quality": body.quality} if body.quality else {}
    if melody:
        assert isinstance(model, MusicGenSettings)
        headers[MELODY_STEMS] = "separated" if model.stem_separation else "whole"
    clips = [ClipRequest(params, diffusion, body.include_prompt) for params in wanted]
    return Order(share, began, voice, clips, output, body.return_codes, body.repeatable, headers)


async def _melody(data: bytes | None, voice: Voice, service: Service) -> Waveform | None:
    if data is None:
        return None
    await check_follows(voice, service)
    rate = voice.language_model.sample_rate
    return await service.pipeline.read(data, service.limits, rate, 1, "melody")


async def check_follows(voice: Voice, service: Service, field: str = "melody") -> None:
    """Raise ApiError 422, which names the models that can, where one follows no melodies."""
    if not voice.language_model.melody:
        able = ", ".join(await service.registry.melody_models()) or "none that is configured"
        message = f"{field}: {voice.model.name!r} follows none; models that do: {able}"
        raise ApiError(422, "invalid_value", message, field)


async def _prompt(
    data: bytes | None, body: GenerationsBody, voice: Voice, service: Service
) -> Codes | None:
    """Return the codes to go on from: of a file of codes, or of audio between start and end."""
    if data is None:
        if {"start", "end", "include_prompt"} & body.model_fields_set:
            message = "start, end and include_prompt belong to continue_from; send it along"
            raise ApiError(422, "missing_field", message, "continue_from")
        return None
    if data[8:9] == b"{":  # safetensors begins with the length of a JSON head
        codes, _ = codes_file.read(data)
        first, last = _part(body, voice.codec.frame_rate, codes.frames)
        return Codes.pack(codes.array()[:, first:last])
    codec = service.registry.codec_of(voice.model)
    audio = await service.pipeline.read_for(codec, data, service.limits, "continue_from")
    first, last = _part(body, audio.sample_rate, audio.samples)
    part = Waveform.pack(audio.array()[:, first:last], audio.sample_rate)
    codes = await service.pipeline.encode(codec, part)
    return Codes.pack(codes.array()[: voice.language_model.codebooks])


def _part(body: GenerationsBody, rate: float, total: int) -> tuple[int, int]:
    """Return where start and end lie in so many frames or samples. Raises ApiError 422."""
    first = int(min(body.start * rate, total))
    last = total if body.end is None else int(min(body.end * rate, total))
    if first >= last:
        message = f"start: nothing lies between start and end; the file has {total / rate:g} s"
        raise ApiError(422, "invalid_value", message, "start")
    return first, last
