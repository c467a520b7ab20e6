"""Checks of what a request asks for, against the limits and the models. They raise ApiError 422."""

import math

from deployments.settings import TokenModelSettings
from graph.errors import ApiError
from graph.registry import ModelWithCodec, Registry
from graph.settings import Limits


def check_text(text: str, limits: Limits, field: str) -> None:
    """Check that a text is not too long."""
    if len(text) > limits.max_text_chars:
        message = f"{field}: {len(text)} characters; allowed: 1 to {limits.max_text_chars}"
        raise ApiError(422, "invalid_value", message, field)


def check_seconds(seconds: float, most: float, what: str, field: str, least: float = 0) -> None:
    """Check that something lasts neither too short nor too long; `what` begins the message."""
    if not least <= seconds <= most:
        allowed = f"from {least:g} to {most:g} s" if least else f"up to {most:g} s"
        message = f"{field}: {what}{seconds:g} s; allowed: {allowed}"
        raise ApiError(422, "invalid_value", message, field)


def check_clip_count(clips: int, limits: Limits, field: str) -> None:
    """Check that a workflow has not too many clips."""
    if clips > limits.max_clips:
        message = f"{field}: {clips} parts in one request; allowed: up to {limits.max_clips}"
        raise ApiError(422, "invalid_value", message, field)


async def check_follows_melody(
    pair: ModelWithCodec, registry: Registry, field: str = "melody"
) -> None:
    """Check that a model follows melodies; the message names those that do."""
    if not pair.language_model.melody:
        able = ", ".join(await registry.list_melody_models()) or "none that is configured"
        message = f"{field}: {pair.settings.name!r} follows none; models that do: {able}"
        raise ApiError(422, "invalid_value", message, field)


async def find_pair(
    registry: Registry, kind: type[TokenModelSettings], name: str | None, field: str = "model"
) -> ModelWithCodec:
    """Return the model `name`, or the first of a kind. Raises ApiError 404."""
    wanted = kind if name is None else TokenModelSettings
    return await registry.get_model_with_codec(registry.find_model(wanted, name, field))


def count_frames(seconds: float, pair: ModelWithCodec) -> int:
    """Return the fewest frames that hold so many seconds."""
    return max(1, math.ceil(round(seconds * pair.codec.frame_rate, 6)))
