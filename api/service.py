"""What the routes share: the models, the limits, and the health of the deployments."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.audio.credentials import Signer
from api.diffusion_speed import Pace
from deployments.accounts import Charge
from graph.admission import Admission
from graph.cache import Cache
from graph.idempotency import Once
from graph.jobs.jobs import Jobs
from graph.jobs.webhooks import Webhooks
from graph.ledger_client import LedgerClient
from graph.live.sessions import Sessions
from graph.metrics import Metrics
from graph.pipeline import Pipeline
from graph.registry import Registry
from graph.settings import Limits


@dataclass(frozen=True)
class State:
    """Of one deployment."""

    status: str
    """As Serve names it, such as HEALTHY."""
    running: int
    """Replicas that serve. Without any it sleeps: a call would start one."""


@dataclass
class Service:
    """One ingress replica's state; `limits` is replaced while running."""

    registry: Registry
    states: Callable[[], Awaitable[Mapping[str, State]]]
    """Asks for the state of every deployment of this application, by name."""
    limits: Limits
    started_at: int
    """Unix seconds."""
    ledger: LedgerClient
    admission: Admission
    metrics: Metrics
    cache: Cache
    jobs: Jobs
    once: Once
    webhooks: Webhooks
    live: Sessions
    pace: Pace = field(default_factory=Pace)
    configured: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `limits` hold what the configuration says: Serve brings it after the start."""
    signer: Signer | None = None
    """Of files, where a key is configured."""

    @property
    def pipeline(self) -> Pipeline:
        """What composes the models."""
        return Pipeline(self.registry)

    def charged(
        self, request: Request, model: str, seconds: float
    ) -> AbstractAsyncContextManager[None]:
        """Hold the charge of a request that works on so much audio, and note its model.

        Raises ApiError 429 where it is not let in.
        """
        request.state.model = model
        share = request.state.share
        return self.admission.charged(share, Charge(share.name, share.weight, model, seconds))


async def _service(request: Request) -> Service:
    # Were it no coroutine, FastAPI would call it on a thread, for every request.
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]
