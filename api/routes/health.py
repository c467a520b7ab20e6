"""GET /healthz (this process) and /readyz (everything behind it)."""

from fastapi import APIRouter

from api.errors import ErrorBody
from api.service import Served
from graph.errors import ApiError

# A deployment that is being scaled serves all the while.
SERVING = {"HEALTHY", "UPSCALING", "DOWNSCALING"}

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """Say that this process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": ErrorBody}})
async def get_readiness(service: Served) -> dict[str, str | dict[str, str] | None]:
    """Say that every deployment is healthy and that models and codecs fit together.

    Models that sleep are not woken for it.
    """
    states = await service.states()
    statuses = {name: state.status for name, state in states.items()}
    waiting = [f"{name} is {status}" for name, status in statuses.items() if status not in SERVING]
    if waiting or not statuses:
        raise ApiError(503, "not_ready", "not ready: " + (", ".join(waiting) or "nothing deployed"))
    await service.registry.check_models(
        {name for name, state in states.items() if not state.running}
    )
    config_hash = service.limits.config_hash
    return {"status": "ready", "deployments": statuses, "config_hash": config_hash}
