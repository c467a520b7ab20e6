"""Style transfer: the melody of a file, in another style."""

from dataclasses import replace

from api.audio.finishing import LOUDNESS_BLOCK_S
from api.schemas.generation import check_length
from api.schemas.workflows import StyleTransferBody
from api.service import Service
from deployments.accounts import Share
from deployments.settings import MusicGenSettings, TokenModelSettings
from graph.errors import ApiError
from graph.ordering import MELODY_STEMS, check_follows
from graph.registry import Voice
from graph.workflows.mixing import Placed
from graph.workflows.plan import (
    Made,
    Mixed,
    Part,
    Plan,
    Span,
    Stem,
    check_seconds,
    frames_for,
    voice_of,
)

CONTENT = "content"
"""The field of the file whose melody is followed."""


async def plan_style_transfer(
    service: Service,
    share: Share,
    began: float,
    body: StyleTransferBody,
    asked: str,
    content: bytes,
) -> Plan:
    """Return what is asked for. Raises ApiError, InvalidRequest or InvalidAudio."""
    output, limits = body.output(), service.limits
    voice = await _voice(service, body.model)
    check_length(body.style, limits, "style")
    if body.duration is not None:
        check_seconds(body.duration, limits.max_duration_s, "", "duration")
    rate = voice.language_model.sample_rate
    melody = await service.pipeline.read(content, limits, rate, 1, CONTENT)
    seconds = melody.seconds if body.duration is None else body.duration
    what = "the file lasts, unless duration says less, "
    check_seconds(seconds, limits.max_duration_s, what, CONTENT, LOUDNESS_BLOCK_S)
    drawn = body.drawn(body.style, frames_for(seconds, voice))
    params = replace(drawn, guidance_scale=body.guidance_scale, melody=melody)
    part, samples = Part("style", voice, params), round(seconds * voice.codec.sample_rate)

    def mixed(made: Made) -> Mixed:
        stem = Stem("style", Placed(made[part].array()[:, :samples], 0), part)
        return Mixed(voice.codec.sample_rate, samples, [stem], [Span("style", 0, samples)])

    assert isinstance(voice.model, MusicGenSettings)
    return Plan(
        name="style-transfer",
        share=share,
        began=began,
        asked=asked,
        chains=[[part]],
        mixed=mixed,
        output=output,
        loudness=body.loudness,
        title=body.style,
        repeatable=body.repeatable,
        seconds=samples / voice.codec.sample_rate,
        headers={MELODY_STEMS: "separated" if voice.model.stem_separation else "whole"},
    )


async def _voice(service: Service, name: str | None) -> Voice:
    """Return the model, or the first that follows melodies. Raises ApiError 404, 422."""
    if name is None:
        able = await service.registry.melody_models()
        if not able:
            message = "model: none that is configured follows melodies; configure one that does"
            raise ApiError(422, "invalid_value", message, "model")
        name = able[0]
    voice = await voice_of(service, TokenModelSettings, name)
    await check_follows(voice, service, "model")
    return voice
