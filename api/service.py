"""The state that all routes share: the models, the limits and the execution of tasks."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from api.audio.credentials import Signer
from api.keys import find_webhook_secrets
from api.readiness import Readiness, States
from api.settings import UserConfig, read_webhook_secrets
from deployments.capacity import Capacity
from deployments.settings import AnyModelSettings
from graph.admission import Admission, LedgerClient, read_capacity
from graph.cache import Cache
from graph.execution import Executor
from graph.held_bytes import HeldBytes
from graph.idempotency import Idempotency
from graph.jobs.jobs import Jobs, build_jobs
from graph.jobs.webhooks import Webhooks
from graph.live.session import Sessions
from graph.metrics import Metrics
from graph.pipeline import Pipeline
from graph.price import DiffusionSpeed
from graph.registry import Registry
from graph.settings import LEDGER, IngressSettings, JobsSettings


@dataclass
class Service:
    """The state of one ingress replica; `limits` is replaced while it runs."""

    registry: Registry
    states: States
    """Reads the state of every deployment of this application, by name."""
    limits: UserConfig
    ledger: LedgerClient
    metrics: Metrics
    jobs: Jobs
    jobs_settings: InitVar[JobsSettings]
    live: Sessions
    webhooks: Webhooks = field(init=False)
    pipeline: Pipeline = field(init=False)
    executor: Executor = field(init=False)
    readiness: Readiness = field(init=False)
    diffusion_speed: DiffusionSpeed = field(default_factory=DiffusionSpeed)
    started_at: int = field(default_factory=lambda: int(time.time()))
    """The time of the start, in Unix seconds."""
    configured: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `limits` has the configured values, which Serve sends after the start."""
    signer: Signer | None = None
    """Signs files if a key is configured."""
    capacity: Callable[[str], Capacity] = read_capacity
    """Returns what the replicas of a model have reported."""

    def __post_init__(self, jobs_settings: JobsSettings) -> None:
        self.webhooks = Webhooks(
            jobs_settings, lambda owner: find_webhook_secrets(owner, self.limits)
        )
        self.pipeline = Pipeline(self.registry)
        self.readiness = Readiness(self.registry, self.states)
        self.executor = Executor(
            Admission(self.ledger, lambda: self.limits, self.metrics, self.capacity),
            Cache(lambda: self.limits.cache_bytes, self.ledger),
            Idempotency(self.jobs, lambda: self.limits.keep_jobs_s),
            self.metrics,
            self.diffusion_speed,
            HeldBytes(lambda: self.limits.max_held_bytes),
        )


def build_service(
    models: Sequence[AnyModelSettings],
    handles: Mapping[str, Any],
    settings: IngressSettings,
    states: States,
    limits: UserConfig | None = None,
) -> Service:
    """Build the state of an ingress replica. Raises CredentialsError or ValueError."""
    credentials, metrics = settings.content_credentials, Metrics()
    read_webhook_secrets()  # an invalid one ends the start
    return Service(
        registry=Registry(models, handles),
        states=states,
        limits=limits or UserConfig(),
        ledger=LedgerClient(handles[LEDGER]),
        metrics=metrics,
        jobs=build_jobs(settings.jobs),
        jobs_settings=settings.jobs,
        live=Sessions(metrics),
        signer=Signer(credentials) if credentials else None,
    )


async def _read_service(request: Request) -> Service:
    # FastAPI would call a plain function on a thread, for every request.
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_read_service)]
