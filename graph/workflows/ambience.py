"""Plans and mixes ambiences, which are loops without a seam."""

from dataclasses import dataclass, replace

from graph.registry import count_frames, find_language_model
from graph.settings import check_seconds, check_text
from graph.workflows.mix import Material, Mix, Stem, TimeSpan
from graph.workflows.mixing import Placed, close_loop
from graph.workflows.planned_clip import PlannedClip
from graph.workflows.task import Context, WorkflowTask

OVERLAP_S = 2.0
"""Seconds that are generated after the loop and faded into its beginning, at most half of it."""
PROMPTS = {
    "forest": "forest ambience: birds singing, leaves in a light wind, a stream far away",
    "ocean": "ocean ambience: waves rolling onto a beach, wind and seagulls",
    "city": "city ambience: distant traffic, people walking and talking, a horn now and then",
    "dungeon": "dungeon ambience: dripping water, a low drone, echoes and rattling chains",
}
"""The prompt of each environment."""


@dataclass(frozen=True)
class Ambience:
    """The parameters of an ambience: an environment, or a prompt."""

    environment: str | None
    prompt: str | None
    duration: float | None
    """Seconds; None means 10, or the longest that the server allows."""
    loudness: float


async def plan_ambience(context: Context, ambience: Ambience) -> WorkflowTask:
    """Plan an ambience. Raises ApiError where it cannot be made."""
    limits = context.limits
    seconds = ambience.duration or min(10.0, limits.max_duration_s)
    check_seconds(seconds, limits.max_duration_s, "", "duration")
    check_text(ambience.prompt or "", limits, "prompt")
    model = find_language_model(context.registry, context.model, "sound")
    pair = await context.registry.get_model_with_codec(model)
    text = PROMPTS[ambience.environment] if ambience.environment else ambience.prompt
    assert text is not None
    rate = pair.codec.sample_rate
    samples = round(seconds * rate)
    over = min(round(OVERLAP_S * rate), samples // 2)
    name = ambience.environment or "ambience"
    frames = count_frames((samples + over) / rate, pair)
    clip = PlannedClip(name, pair, replace(context.drawn, text=text, frames=frames))

    def mix_loop(material: Material) -> Mix:
        loop = close_loop(material.take_clip(clip).array()[:, : samples + over], samples)
        stem = Stem(name, Placed(loop, 0), clip)
        return Mix(rate, samples, [stem], [TimeSpan(name, 0, samples)], is_loop=True)

    return WorkflowTask(
        name="ambience",
        share=context.share,
        began=context.began,
        repeatable=context.repeatable,
        context=context,
        chains=[[clip]],
        mix=mix_loop,
        loudness=ambience.loudness,
        title=text,
        seconds=samples / rate,
    )
