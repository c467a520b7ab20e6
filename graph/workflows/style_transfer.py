"""Plans style transfers: the melody of a file in another style."""

from dataclasses import dataclass, replace

from graph.errors import ApiError
from graph.registry import (
    ModelWithCodec,
    check_follows_melody,
    count_frames,
    find_language_model,
)
from graph.settings import check_seconds, check_text
from graph.tasks.task import Upload
from graph.workflows.levels import LOUDNESS_BLOCK_S
from graph.workflows.mix import Material, Mix, Stem, TimeSpan
from graph.workflows.mixing import Placed
from graph.workflows.planned_clip import PlannedClip
from graph.workflows.task import Context, WorkflowTask

CONTENT = "content"
"""The field of the file whose melody is followed."""


@dataclass(frozen=True)
class StyleTransfer:
    """The parameters of a style transfer, except the file."""

    style: str
    duration: float | None
    """Seconds; None means the length of the file."""
    loudness: float


async def plan_style_transfer(
    context: Context, transfer: StyleTransfer, content: Upload
) -> WorkflowTask:
    """Plan a style transfer. Raises ApiError where it cannot be made."""
    limits = context.limits
    check_text(transfer.style, limits, "style")
    if transfer.duration is not None:
        check_seconds(transfer.duration, limits.max_duration_s, "", "duration")
    seconds = transfer.duration or content.info.seconds
    what = "the file lasts, unless duration says less, "
    check_seconds(seconds, limits.max_duration_s, what, CONTENT, LOUDNESS_BLOCK_S)
    pair = await _find_pair(context)
    params = replace(context.drawn, text=transfer.style, frames=count_frames(seconds, pair))
    clip, rate = PlannedClip("style", pair, params), pair.codec.sample_rate
    samples = round(seconds * rate)

    def mix_clip(material: Material) -> Mix:
        stem = Stem("style", Placed(material.take_clip(clip).array()[:, :samples], 0), clip)
        return Mix(rate, samples, [stem], [TimeSpan("style", 0, samples)])

    return WorkflowTask(
        name="style-transfer",
        share=context.share,
        began=context.began,
        repeatable=context.repeatable,
        context=context,
        chains=[[clip]],
        mix=mix_clip,
        loudness=transfer.loudness,
        title=transfer.style,
        seconds=samples / rate,
        melody=content,
    )


async def _find_pair(context: Context) -> ModelWithCodec:
    """Return the model, or the first that follows melodies. Raises ApiError 404 or 422."""
    registry = context.registry
    if context.model is None:
        if able := await registry.find_melody_model():
            return able
        message = "model: none that is configured follows melodies; configure one that does"
        raise ApiError(422, "invalid_value", message, "model")
    model = find_language_model(registry, context.model, "music")
    pair = await registry.get_model_with_codec(model)
    check_follows_melody(pair, registry, "model")
    return pair
