"""The routes /v1/models, in OpenAI's format, and /v1/limits."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from api.audio.output import FORMATS, Format
from api.errors import ErrorBody
from api.service import Served, Service
from api.settings import Tiers
from deployments.settings import AnyModelSettings, MusicGenSettings, Role, TokenModelSettings
from graph.calls import gather_all
from graph.errors import ApiError
from graph.settings import DECODED_BY_A_CODEC


class Model(BaseModel):
    """A model in OpenAI's format, with additional fields."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """The start of this server, in Unix seconds."""
    owned_by: str
    kind: str
    role: Role | None
    """What a language model makes; null for other models."""
    license: str | None
    """The license of the weights."""
    codec: str | None
    """The codec whose codes the model uses; null for models without a codec."""
    melody: bool | None
    """Whether the model follows melodies; null if unknown, for example while it sleeps."""


class ModelList(BaseModel):
    """All models of this server."""

    object: Literal["list"] = "list"
    data: list[Model]


TO_ONE = {
    "description": "The first model of the list.",
    "operationId": "get_model",
    "parameters": {"name": "$response.body#/data/0/id"},
}

Name = Annotated[str, Path(description="The name of a model in /v1/models.", examples=["music"])]

router = APIRouter(prefix="/v1/models", tags=["models"])


async def _describe_model(model: AnyModelSettings, service: Service) -> Model:
    owner, _, _ = model.checkpoint.replace(":", "/").partition("/")
    return Model(
        id=model.name,
        created=service.started_at,
        owned_by=owner or "local",
        kind=model.kind,
        role=model.role if isinstance(model, TokenModelSettings) else None,
        license=model.license,
        codec=model.codec if isinstance(model, DECODED_BY_A_CODEC) else None,
        melody=await _follows_melody(model, service),
    )


async def _follows_melody(model: AnyModelSettings, service: Service) -> bool | None:
    if not isinstance(model, MusicGenSettings):
        return False
    if not service.registry.is_known(model):
        states = await service.states()
        if not all(name in states and states[name].running for name in (model.name, model.codec)):
            return None
    try:
        return (await service.registry.get_model_with_codec(model)).language_model.melody
    except ApiError:  # /readyz reports the reason; a list of names needs no model
        return None


@router.get("", responses={200: {"links": {"describe": TO_ONE}}})
async def list_models(service: Served) -> ModelList:
    """List all models of this server."""
    models = service.registry.models.values()
    return ModelList(data=await gather_all(_describe_model(model, service) for model in models))


@router.get("/{name}", responses={404: {"model": ErrorBody}})
async def get_model(name: Name, service: Served) -> Model:
    """Describe one model."""
    model = service.registry.models.get(name)
    if model is None:
        valid = ", ".join(service.registry.models)
        raise ApiError(404, "model_not_found", f"no model {name!r}; valid: {valid}", "model")
    return await _describe_model(model, service)


class KeyLimits(BaseModel):
    """The limits of the requests of one key."""

    name: str
    weight: float
    """The key's share of a busy model, relative to the weights of other keys."""
    requests_per_minute: float | None
    row_seconds: float | None
    """The limit on unfinished work in seconds of audio, where guidance counts twice; or null."""


class LimitsAnswer(BaseModel):
    """All limits of the requests of a key, and the formats of their files."""

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
    max_held_bytes: int
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
    formats: dict[str, Format]


limits = APIRouter(tags=["models"])


@limits.get("/v1/limits", responses={401: {"model": ErrorBody}})
async def get_limits(request: Request, service: Served) -> LimitsAnswer:
    """Return all limits of the server and of this key."""
    share = request.state.share
    key = KeyLimits(
        name=share.name,
        weight=share.weight,
        requests_per_minute=share.requests_per_minute,
        row_seconds=share.row_seconds,
    )
    return LimitsAnswer(key=key, formats=FORMATS, **service.limits.model_dump(exclude={"keys"}))
