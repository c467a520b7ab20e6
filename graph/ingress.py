"""The HTTP application, as a deployment."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.settings import AnyModelSettings
from graph import errors
from graph.guards import Guard
from graph.registry import Registry
from graph.routes import (
    analyze,
    codec,
    diffusion,
    elevenlabs,
    generate,
    generations,
    health,
    models,
    openai,
)
from graph.service import Service
from graph.settings import INGRESS, Limits


def create_app(service: Service) -> FastAPI:
    """Build the HTTP application."""
    app = FastAPIOffline(title="audiocraft-serve", version="0.1.0", summary="AudioCraft over HTTP")
    app.state.service = service
    app.add_middleware(Guard, service=service)
    errors.install(app)
    for router in (
        generate.router,
        generations.router,
        openai.router,
        elevenlabs.router,
        codec.encoding,
        codec.decoding,
        diffusion.router,
        analyze.router,
        models.router,
        health.router,
    ):
        app.include_router(router)
    return app


def _statuses(application: str) -> Mapping[str, str]:
    deployments = serve.status().applications[application].deployments
    return {name: deployment.status.value for name, deployment in deployments.items()}


@serve.deployment(name=INGRESS, max_ongoing_requests=1000)
@serve.ingress()
class Ingress:
    """Takes requests, checks them and composes the models."""

    def __init__(
        self, models: Sequence[AnyModelSettings], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        application = serve.get_replica_context().app_name
        self._service = Service(
            registry=Registry(models, handles),
            statuses=lambda: asyncio.to_thread(_statuses, application),
            limits=Limits(),
            started_at=int(time.time()),
        )

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new limits. Raises ValidationError on an unknown key."""
        self._service.limits = Limits.model_validate(user_config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)
