"""GET /v1/models, in OpenAI's shape."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from deployments.settings import ModelSettings
from graph.errors import ApiError, ErrorBody
from graph.service import Served


class Model(BaseModel):
    """A model, in OpenAI's shape, with what it is beside it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix seconds since which this server has it."""
    owned_by: str
    kind: str
    license: str | None
    """Of the weights."""


class ModelList(BaseModel):
    """Every model that this server has."""

    object: Literal["list"] = "list"
    data: list[Model]


TO_ONE = {
    "description": "The first of them.",
    "operationId": "get_model",
    "parameters": {"name": "$response.body#/data/0/id"},
}

Name = Annotated[str, Path(description="A name from /v1/models.", examples=["music"])]

router = APIRouter(prefix="/v1/models", tags=["models"])


def _describe(model: ModelSettings, kind: str, created: int) -> Model:
    owner, _, _ = model.checkpoint.replace(":", "/").partition("/")
    return Model(
        id=model.name, created=created, owned_by=owner or "local", kind=kind, license=model.license
    )


@router.get("", responses={200: {"links": {"describe": TO_ONE}}})
async def list_models(service: Served) -> ModelList:
    """List the models."""
    models = service.registry.models.values()
    return ModelList(data=[_describe(m, m.kind, service.started_at) for m in models])


@router.get("/{name}", responses={404: {"model": ErrorBody}})
async def get_model(name: Name, service: Served) -> Model:
    """Describe one model."""
    model = service.registry.models.get(name)
    if model is None:
        valid = ", ".join(service.registry.models)
        raise ApiError(404, "model_not_found", f"no model {name!r}; valid: {valid}", "model")
    return _describe(model, model.kind, service.started_at)
