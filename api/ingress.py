"""The HTTP application, as a deployment."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.handle import DeploymentHandle

from api import openapi as description
from api.audio.credentials import Signer
from api.audio.tags import SOFTWARE, VERSION
from api.guards import Guard
from api.request_log import Observed
from api.routes import (
    analyze,
    codec,
    diffusion,
    elevenlabs,
    generate,
    generations,
    health,
    jobs,
    limits,
    live,
    models,
    openai,
    playground,
    stats,
    workflows,
)
from api.service import Service, State
from deployments import tracing
from deployments.scaling.load_report import ProcessPace
from deployments.settings import AnyModelSettings
from graph import errors
from graph.admission import Admission
from graph.cache import Cache
from graph.idempotency import Once
from graph.in_flight import Joining
from graph.jobs.build import jobs_of
from graph.jobs.runner import Runner
from graph.jobs.webhooks import Webhooks
from graph.ledger_client import LedgerClient
from graph.live.sessions import Sessions
from graph.metrics import Metrics
from graph.registry import Registry
from graph.settings import INGRESS, LEDGER, IngressSettings, Limits


def create_app(
    service: Service, cors_origins: Sequence[str] = (), jobs_at_once: int = 0
) -> FastAPI:
    """Build the HTTP application."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.jobs.store.open()
        working = asyncio.create_task(Runner(service, jobs_at_once).run())
        yield
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await service.once.close()
        await service.jobs.store.close()
        await service.ledger.close()
        await asyncio.to_thread(tracing.stop)

    app = FastAPIOffline(
        title=SOFTWARE,
        version=VERSION,
        summary="AudioCraft over HTTP",
        description=description.ABOUT,
        openapi_tags=description.TAGS,
        servers=description.SERVERS,
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
    )
    description.describe(app, service)
    app.state.service = service
    app.add_middleware(Guard, service=service, origins=cors_origins)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=["*"],
        )  # fmt: skip
    app.add_middleware(Observed, metrics=service.metrics)  # around all others
    errors.install(app)
    for router in (
        generate.router,
        generations.router,
        workflows.of_json,
        workflows.of_both,
        workflows.of_forms,
        jobs.posting,
        jobs.looking,
        openai.router,
        elevenlabs.router,
        codec.encoding,
        codec.decoding,
        diffusion.router,
        analyze.router,
        models.router,
        limits.router,
        live.router,
        stats.router,
        health.router,
        playground.router,
    ):
        app.include_router(router)
    return app


def _states(application: str) -> Mapping[str, State]:
    deployments = serve.status().applications[application].deployments
    return {
        name: State(deployment.status.value, deployment.replica_states.get("RUNNING", 0))
        for name, deployment in deployments.items()
    }


@serve.deployment(name=INGRESS, max_ongoing_requests=1000)
@serve.ingress()
class Ingress:
    """Takes requests, checks them and composes the models."""

    def __init__(
        self,
        models: Sequence[AnyModelSettings],
        handles: Mapping[str, DeploymentHandle],
        settings: IngressSettings,
    ) -> None:
        credentials = settings.content_credentials
        application = serve.get_replica_context().app_name
        metrics = Metrics()
        kept = jobs_of(settings.jobs)
        ledger = LedgerClient(handles[LEDGER])
        self._service = Service(
            registry=Registry(models, handles),
            states=lambda: asyncio.to_thread(_states, application),
            limits=Limits(),
            started_at=int(time.time()),
            ledger=ledger,
            admission=Admission(ledger, lambda: self._service.limits, metrics),
            metrics=metrics,
            cache=Cache(lambda: self._service.limits.cache_bytes, Joining(ledger)),
            jobs=kept,
            once=Once(kept, lambda: self._service.limits.keep_jobs_s),
            webhooks=Webhooks(settings.jobs),
            live=Sessions(metrics),
            signer=Signer(credentials) if credentials else None,
        )
        self._settings = settings
        self._pace = ProcessPace()

    async def reconfigure(self, user_config: dict[str, object] | None, rank: object) -> None:
        """Take new limits. Raises ValueError on an unknown key or model.

        Serve calls this once the lifespan has begun, and without a `user_config` only because
        of the parameter `rank`.
        """
        limits = Limits.model_validate(user_config or {}).with_environment()
        limits.quality.check(list(self._service.registry.models.values()))
        self._service.limits = limits
        self._service.configured.set()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `deployments.scaling.policy` goes by."""
        return asdict(self._pace.report())

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        return create_app(self._service, settings.cors_origins, settings.jobs.at_once)
