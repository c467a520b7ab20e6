"""The only file that uses private names of Ray; they were checked against Ray 2.60.0."""

import contextvars
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve.schema import DeploymentDetails, ServeInstanceDetails

DefaultRouter = PowerOfTwoChoicesRequestRouter
"""Serve's own router, for deployments that only add to it."""
CHECKED_RELEASE = "2.60.0"


def detach_request(context: contextvars.Context) -> None:
    """Give a context this request's id, without the internal one by which Serve cancels tasks."""
    from ray.serve.context import _get_serve_request_context, _serve_request_context

    detached = replace(_get_serve_request_context(), _internal_request_id="")
    context.run(_serve_request_context.set, detached)


def name_request(context: contextvars.Context, name: str) -> None:
    """Give a context `name` as its request's id: it stands in all logs of the context."""
    from ray.serve.context import _get_serve_request_context, _serve_request_context

    named = replace(_get_serve_request_context(), request_id=name)
    context.run(_serve_request_context.set, named)


def deploy_config(config: Mapping[str, Any]) -> None:
    """Start Serve and give it a configuration, as `serve run` does; return at once."""
    from ray.serve._private.api import serve_start
    from ray.serve.config import gRPCOptions
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(config)
    client = serve_start(
        http_options=schema.http_options.model_dump(),
        proxy_location=schema.proxy_location,
        grpc_options=gRPCOptions(**schema.grpc_options.model_dump()),
        global_logging_config=schema.logging_config,
    )
    client.deploy_apps(schema, _blocking=False)


def read_deployments(application: str) -> Mapping[str, DeploymentDetails]:
    """Return the deployments of an application with each replica; `serve.status` only counts them.

    Raises KeyError if there is no such application.
    """
    from ray.serve.context import _get_global_client

    details = ServeInstanceDetails(**_get_global_client().get_serve_details())
    deployments: Mapping[str, DeploymentDetails] = details.applications[application].deployments
    return deployments


def find_log_folder() -> Path:
    """Return the folder of the logs of the Ray that this process has started."""
    return Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
