"""Chooses the tier of a request's `quality`: the named tier, or the best within a time."""

from collections.abc import Collection
from typing import TypeVar

from api.schemas.generation import TARGET_S, GenerationsBody
from api.service import Service
from api.settings import BEST_FIRST, TierName
from deployments.accounts import NOTHING_KNOWN, Snapshot
from deployments.capacity import ASSUMED_SPEED
from deployments.settings import TokenModelSettings
from engine.errors import InvalidRequest
from graph.errors import ApiError
from graph.price import estimate_seconds

Body = TypeVar("Body", bound=GenerationsBody)
FILE_FIELDS = ("format", "sample_rate", "bitrate")
"""Fields that belong together: if the request sets one of them, the tier sets none of them."""


async def apply_quality(
    service: Service, body: Body, files: Collection[str], snapshot: Snapshot | None = None
) -> Body:
    """Return the body with the fields of its tier, and the tier's name as its quality.

    `files` names the uploads of the request; `snapshot` is read where it is not given. Raises
    ApiError 422 if the tier is not possible.
    """
    if body.target_s is not None and body.quality != "auto":
        message = "target_s belongs to quality auto; leave it out, or ask for auto"
        raise ApiError(422, "invalid_value", message, "target_s")
    if body.quality is None:
        return body
    if body.quality != "auto":
        chosen = _apply_tier(service, body, body.quality)
        if problem := await _find_problem(service, chosen, files):
            message = f"quality: {body.quality} is not possible: {problem}"
            raise ApiError(422, "quality_unavailable", message, "quality")
        return chosen
    candidates = [_apply_tier(service, body, name) for name in BEST_FIRST]
    problems = [await _find_problem(service, one, files) for one in candidates]
    possible = [one for one, problem in zip(candidates, problems, strict=True) if not problem]
    if not possible:
        message = f"quality: no tier is possible: {problems[-1]}"
        raise ApiError(422, "quality_unavailable", message, "quality")
    snapshot = snapshot or await read_snapshot(service)
    target_s = body.target_s or TARGET_S
    in_time = (one for one in possible if _estimate_body(service, one, snapshot) <= target_s)
    return next(in_time, possible[-1])


def _apply_tier(service: Service, body: Body, name: TierName) -> Body:
    """Return the body with the fields of a tier; fields that the request sets are kept."""
    given = {field for field in body.model_fields_set if getattr(body, field) is not None}
    if given & {*FILE_FIELDS, "sample_format"}:
        given |= set(FILE_FIELDS)
    tier = service.limits.quality.get_tier(name).model_dump(exclude_none=True)
    fields = {field: value for field, value in tier.items() if field not in given}
    return body.model_copy(update={**fields, "quality": name, "target_s": None})


async def _find_problem(
    service: Service, body: GenerationsBody, files: Collection[str]
) -> str | None:
    """Return the reason why the fields of a tier cannot be used, or None."""
    registry = service.registry
    try:
        model = registry.find_model(TokenModelSettings, body.model)
        body.build_output()
        if body.decoder == "mbd":
            registry.find_diffusion(model)
    except (ApiError, InvalidRequest) as error:
        return str(error)
    if body.decoder == "mbd" and body.stream:
        return "multi-band diffusion needs the whole clip; leave out stream"
    if "melody" in files:
        pair = await registry.get_model_with_codec(model)
        if not pair.language_model.melody:
            return f"{model.name!r} cannot follow melodies"
    return None


async def read_snapshot(service: Service) -> Snapshot:
    """Return the outstanding work and the speeds, or nothing while the ledger is out of reach."""
    try:
        return await service.ledger.fetch_snapshot()
    except ApiError:  # the ledger cannot be reached: assume idle models with ASSUMED_SPEED
        return NOTHING_KNOWN


def _estimate_body(service: Service, body: GenerationsBody, snapshot: Snapshot) -> float:
    """Estimate the seconds until a generation has finished, including the tasks before it."""
    registry, clips = service.registry, len(body.texts) * body.n
    model = registry.find_model(TokenModelSettings, body.model)
    audio = min(body.duration, service.limits.max_duration_s) * clips
    seconds = estimate_seconds(
        model.name,
        audio,
        body.guidance_scale,
        snapshot.row_seconds,
        snapshot.speeds,
        ASSUMED_SPEED,
    )
    if body.decoder == "mbd":
        diffusion = registry.find_diffusion(model).name
        seconds += audio * service.diffusion_speed.seconds_for(diffusion)
    return seconds
