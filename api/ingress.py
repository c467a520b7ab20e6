"""Builds the HTTP application and its deployment."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.handle import DeploymentHandle

from api import errors, openapi
from api.audio.tags import SOFTWARE, VERSION
from api.guards import Guard
from api.readiness import read_states
from api.request_log import RequestLog, configure_telemetry
from api.routes import (
    audio_files,
    compatible,
    generations,
    health,
    jobs,
    live,
    models,
    playground,
    workflows,
)
from api.service import Service, build_service
from api.settings import UserConfig
from api.tasks.task_table import build_job_task
from deployments import tracing
from deployments.scaling.load_report import ProcessLoad
from deployments.settings import AnyModelSettings
from graph.jobs.runner import Runner
from graph.settings import INGRESS, IngressSettings


def create_app(
    service: Service,
    cors_origins: Sequence[str] = (),
    jobs_at_once: int = 0,
    allowed_hosts: Sequence[str] = (),
) -> FastAPI:
    """Build the HTTP application."""
    runner = Runner(
        service.jobs,
        service.webhooks,
        service.executor,
        service.metrics,
        lambda: service.limits.keep_jobs_s,
        partial(build_job_task, service),
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.jobs.store.open()
        working = asyncio.create_task(runner.run_jobs(service.configured, jobs_at_once))
        yield
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await service.executor.idempotency.close()
        await service.jobs.store.close()
        service.webhooks.close()
        await service.ledger.close()
        await asyncio.to_thread(tracing.stop_export)

    app = FastAPIOffline(
        title=SOFTWARE,
        version=VERSION,
        summary="AudioCraft over HTTP",
        description=openapi.ABOUT,
        openapi_tags=openapi.TAGS,
        servers=openapi.SERVERS,
        swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        telemetry=configure_telemetry(),
    )
    openapi.install_document(app, service)
    app.state.service = service
    app.add_middleware(Guard, service=service, origins=cors_origins, hosts=allowed_hosts)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=["*"],
        )  # fmt: skip
    app.add_middleware(RequestLog, metrics=service.metrics)  # the outermost middleware
    errors.install_error_handlers(app)
    for router in (
        generations.simple,
        generations.router,
        workflows.of_json,
        workflows.of_both,
        workflows.of_forms,
        jobs.posting,
        jobs.looking,
        compatible.router,
        audio_files.encoding,
        audio_files.decoding,
        audio_files.diffusing,
        audio_files.analyzing,
        models.router,
        models.limits,
        live.router,
        health.router,
        playground.router,
    ):
        app.include_router(router)
    return app


@serve.deployment(name=INGRESS, max_ongoing_requests=1000)
@serve.ingress()
class Ingress:
    """The deployment that accepts and checks requests, and calls the models."""

    def __init__(
        self,
        models: Sequence[AnyModelSettings],
        handles: Mapping[str, DeploymentHandle],
        settings: IngressSettings,
    ) -> None:
        application = serve.get_replica_context().app_name
        states = partial(asyncio.to_thread, read_states, application)
        self._service = build_service(models, handles, settings, states)
        self._settings = settings
        self._measured_load = ProcessLoad()

    async def reconfigure(self, user_config: dict[str, object] | None, rank: object) -> None:
        """Apply new limits. Raises ValueError if a key or a model is unknown.

        Serve calls this after the lifespan has begun. Without a `user_config`, Serve calls it
        only because it has the parameter `rank`.
        """
        limits = UserConfig.model_validate(user_config or {}).add_environment_keys()
        limits.quality.check_models(list(self._service.registry.models.values()))
        self._service.limits = limits
        self._service.configured.set()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the measurements that `deployments.scaling.policy` uses."""
        return asdict(self._measured_load.build_report())

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        return create_app(
            self._service, settings.cors_origins, settings.jobs.at_once, settings.allowed_hosts
        )
