"""Ambiences: loops without a seam."""

from dataclasses import replace

from api.schemas.generation import check_length
from api.schemas.workflows import AmbienceBody, Environment
from api.service import Service
from deployments.accounts import Share
from deployments.settings import AudioGenSettings
from graph.workflows.mixing import Placed, looped
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

OVER_S = 2.0
"""So much more is made, and faded into the beginning; at most half of the loop."""
PROMPTS: dict[Environment, str] = {
    "forest": "forest ambience: birds singing, leaves in a light wind, a stream far away",
    "ocean": "ocean ambience: waves rolling onto a beach, wind and seagulls",
    "city": "city ambience: distant traffic, people walking and talking, a horn now and then",
    "dungeon": "dungeon ambience: dripping water, a low drone, echoes and rattling chains",
}


async def plan_ambience(
    service: Service, share: Share, began: float, body: AmbienceBody, asked: str
) -> Plan:
    """Return what is asked for. Raises ApiError or InvalidRequest where it cannot be had."""
    output, limits = body.output(), service.limits
    voice = await voice_of(service, AudioGenSettings, body.model)
    by_default = "duration" not in body.model_fields_set
    seconds = min(body.duration, limits.max_duration_s) if by_default else body.duration
    check_seconds(seconds, limits.max_duration_s, "", "duration")
    text = PROMPTS[body.environment] if body.environment else body.prompt
    assert text is not None
    check_length(text if body.prompt else "", limits, "prompt")
    samples = round(seconds * voice.codec.sample_rate)
    over = min(round(OVER_S * voice.codec.sample_rate), samples // 2)
    frames = frames_for((samples + over) / voice.codec.sample_rate, voice)
    drawn = replace(body.drawn(text, frames), guidance_scale=body.guidance_scale)
    name = body.environment or "ambience"
    part = Part(name, voice, drawn)

    def mixed(made: Made) -> Mixed:
        loop = looped(made[part].array()[:, : samples + over], samples)
        stem = Stem(name, Placed(loop, 0), part)
        span = Span(name, 0, samples)
        return Mixed(voice.codec.sample_rate, samples, [stem], [span], is_loop=True)

    return Plan(
        name="ambience",
        share=share,
        began=began,
        asked=asked,
        chains=[[part]],
        mixed=mixed,
        output=output,
        loudness=body.loudness,
        title=text,
        repeatable=body.repeatable,
        seconds=samples / voice.codec.sample_rate,
    )
