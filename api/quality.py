"""What a request for a quality comes to: the best tier within a time, or the one that it names."""

from collections.abc import Collection
from typing import TypeVar

from api.schemas.generation import TARGET_S, GenerationsBody
from api.service import Service
from api.tiers import BEST_FIRST, TierName
from deployments.accounts import ASSUMED_SPEED, Snapshot
from deployments.settings import TokenModelSettings
from engine.errors import InvalidRequest
from graph.errors import ApiError

Body = TypeVar("Body", bound=GenerationsBody)
OF_A_FILE = ("format", "sample_rate", "bitrate")
"""Fields of a tier that go together: one of the request's own puts all of them aside."""
NOTHING_KNOWN = Snapshot({}, {}, {})


async def tiered(service: Service, body: Body, files: Collection[str]) -> Body:
    """Return the body with what its tier gives it, and that tier's name as its quality.

    `files` names those beside it. Raises ApiError 422 where the tier cannot be had.
    """
    if body.target_s is not None and body.quality != "auto":
        message = "target_s belongs to quality auto; leave it out, or ask for auto"
        raise ApiError(422, "invalid_value", message, "target_s")
    if body.quality is None:
        return body
    if body.quality != "auto":
        wanted = _of_tier(service, body, body.quality)
        if problem := await _problem(service, wanted, files):
            message = f"quality: {body.quality} cannot be had: {problem}"
            raise ApiError(422, "quality_unavailable", message, "quality")
        return wanted
    candidates = [_of_tier(service, body, name) for name in BEST_FIRST]
    problems = [await _problem(service, one, files) for one in candidates]
    able = [one for one, problem in zip(candidates, problems, strict=True) if not problem]
    if not able:
        message = f"quality: no tier can be had: {problems[-1]}"
        raise ApiError(422, "quality_unavailable", message, "quality")
    told, target_s = await _snapshot(service), body.target_s or TARGET_S
    in_time = (one for one in able if _seconds(service, one, told) <= target_s)
    return next(in_time, able[-1])


def _of_tier(service: Service, body: Body, name: TierName) -> Body:
    """Return the body with a tier's fields; its own win."""
    given = {field for field in body.model_fields_set if getattr(body, field) is not None}
    if given & {*OF_A_FILE, "sample_format"}:
        given |= set(OF_A_FILE)
    tier = service.limits.quality.of(name).model_dump(exclude_none=True)
    fields = {field: value for field, value in tier.items() if field not in given}
    return body.model_copy(update={**fields, "quality": name, "target_s": None})


async def _problem(service: Service, body: GenerationsBody, files: Collection[str]) -> str | None:
    """Say why a body cannot be had for reasons that are its tier's, or return None."""
    registry = service.registry
    try:
        model = registry.pick(TokenModelSettings, body.model)
        body.output()
        if body.decoder == "mbd":
            registry.diffusion_of(model)
    except (ApiError, InvalidRequest) as error:
        return str(error)
    if body.decoder == "mbd" and body.stream:
        return "multi-band diffusion needs the whole clip; leave out stream"
    if "melody" in files and not (await registry.voice(model)).language_model.melody:
        return f"{model.name!r} follows no melody"
    return None


async def _snapshot(service: Service) -> Snapshot:
    try:
        return await service.ledger.snapshot()
    except ApiError:  # out of reach: models are taken to be idle, and as fast as one assumes
        return NOTHING_KNOWN


def _seconds(service: Service, body: GenerationsBody, told: Snapshot) -> float:
    """Return how long a body would take: what waits before it, and itself, at measured speeds."""
    registry, clips = service.registry, len(body.texts) * body.n
    model = registry.pick(TokenModelSettings, body.model)
    audio = min(body.duration, service.limits.max_duration_s) * clips
    rows = 1 if body.guidance_scale == 1 else 2
    ahead = told.row_seconds.get(model.name, 0.0)
    seconds = (ahead + audio * rows) / told.speeds.get(model.name, ASSUMED_SPEED)
    if body.decoder == "mbd":
        seconds += audio * service.pace.of(registry.diffusion_of(model).name)
    return seconds
