"""The routes /healthz (this process), /readyz (all deployments) and /v1/stats (current load)."""

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from api.errors import ErrorBody
from api.service import Served
from graph.calls import call, gather_all

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """Report that this process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": ErrorBody}})
async def get_readiness(service: Served) -> dict[str, str | dict[str, str] | None]:
    """Report whether every deployment is healthy, and models and codecs fit together.

    This request does not wake models that sleep.
    """
    deployments = dict(await service.readiness.check_deployments())
    config_hash = service.limits.config_hash
    return {"status": "ready", "deployments": deployments, "config_hash": config_hash}


class Backlog(BaseModel):
    """The unfinished work of one model, over all ingresses."""

    row_seconds: float
    """The unfinished work in seconds of audio; guidance counts twice."""
    requests: int
    """The number of requests that run or wait."""
    row_seconds_per_second: float | None
    """The measured speed of the model; null before its first request."""


class StatsAnswer(BaseModel):
    """The current state of the server; the metrics have numbers for monitoring."""

    uptime_s: int
    deployments: dict[str, str]
    replicas: dict[str, int]
    """The number of running replicas of each deployment."""
    models: dict[str, dict[str, float]]
    """The load of one replica of each model. A language model has `running`, `slots`, `waiting`,
    `step_ms` and others; other models have `busy`, `items` and `batches`. A model without a running
    replica has no values."""
    backlog: dict[str, Backlog]


@router.get("/v1/stats", responses={401: {"model": ErrorBody}, 503: {"model": ErrorBody}})
async def get_stats(service: Served) -> StatsAnswer:
    """Report the current load of the server."""
    handles, names = service.registry.handles, list(service.registry.models)
    states = await service.states()

    async def read_load(name: str) -> dict[str, Any]:
        return asdict(await call(handles[name].load)) if states[name].running else {}

    loads = await gather_all(map(read_load, names))
    all_of_them = await service.ledger.fetch_snapshot()
    return StatsAnswer(
        uptime_s=int(time.time()) - service.started_at,
        deployments={name: state.status for name, state in states.items()},
        replicas={name: state.running for name, state in states.items()},
        models=dict(zip(names, loads, strict=True)),
        backlog={
            name: Backlog(
                row_seconds=all_of_them.row_seconds.get(name, 0.0),
                requests=all_of_them.requests.get(name, 0),
                row_seconds_per_second=all_of_them.speeds.get(name),
            )
            for name in sorted({*all_of_them.row_seconds, *all_of_them.speeds})
        },
    )
