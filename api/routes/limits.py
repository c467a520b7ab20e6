"""GET /v1/limits: what one may ask for."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.errors import ErrorBody
from api.service import Served
from api.settings import Tiers


class KeyLimits(BaseModel):
    """What the requests of this key may have."""

    name: str
    weight: float
    """Its part of a busy model, beside the weights of others."""
    requests_per_minute: float | None
    row_seconds: float | None
    """Outstanding at once: seconds of audio, twice under guidance. Null: no bound of its own."""


class LimitsAnswer(BaseModel):
    """Every limit that applies to this key's requests."""

    max_body_bytes: int
    max_body_s: float
    max_text_chars: int
    max_duration_s: float
    max_clips: int
    max_song_s: float
    max_upload_bytes: int
    max_upload_s: float
    max_upload_channels: int
    cache_bytes: int
    max_wait_s: float
    max_jobs: int
    max_jobs_per_key: int
    keep_jobs_s: float
    max_live: int
    max_live_per_key: int
    max_live_s: float
    live_idle_s: float
    live_ahead_s: float
    quality: Tiers
    local_row_seconds: float
    key: KeyLimits


router = APIRouter(tags=["models"])


@router.get("/v1/limits", responses={401: {"model": ErrorBody}})
async def get_limits(request: Request, service: Served) -> LimitsAnswer:
    """Say every limit, and what this key may have."""
    share = request.state.share
    key = KeyLimits(
        name=share.name,
        weight=share.weight,
        requests_per_minute=share.requests_per_minute,
        row_seconds=share.row_seconds,
    )
    return LimitsAnswer(key=key, **service.limits.model_dump(exclude={"keys"}))
