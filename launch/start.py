"""Starts a private Ray and the application for `make serve`, and stops both.

`serve run serve_config.yaml` runs the same file. The launcher adds checks, one-line errors and
isolation: its Ray has its own token, so that two checkouts on one machine do not connect.
"""

import argparse
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = '{"text": "calm piano over soft strings", "duration": 5}'
POLL_S = 0.2
READY_S = 30.0
"""How long the application may say that it is not ready after Serve says that it runs."""
SERVE_ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "api.proxy.connections.install",
    # Seconds between two checks, by which a killed proxy is found; 10 by default.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # Otherwise a replica that hangs gets `grace_s`, as one that finishes its work does.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # The largest value of gRPC for calls between replicas; 4 MB by default. Ten minutes of stereo
    # at 32 kHz are 154 MB.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "2147483647",
    # With an arena for each thread, glibc keeps freed memory: an ingress grew with its requests.
    "MALLOC_ARENA_MAX": "2",
}
"""The environment of Serve's proxy, controller and replicas, on every node."""


class LaunchError(Exception):
    """A failed start; the message is for the person at the terminal."""


def print_line(stage: str, message: str) -> None:
    """Print the name of a stage and a message as one line."""
    print(f"{stage:<11} {message}", flush=True)


def stop_on_signals() -> None:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt."""

    def raise_interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_interrupt)


def check_port(host: str, port: int) -> None:
    """Raise LaunchError where the address cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError as error:
            raise LaunchError(f"port {port}: ports are from 1 to 65535") from error
        except OSError as error:
            raise LaunchError(
                f"port {port} on {host} is taken ({error.strerror}); choose another: "
                f"make serve PORT={port + 1}"
            ) from error


def check_sources(config: Mapping[str, Any]) -> None:
    """Raise LaunchError where a model's source is neither a folder here nor a hub id."""
    from engine.errors import CheckpointNotFound
    from engine.sources import locate

    for model in config["applications"][0]["args"]["models"]:
        try:
            for source in filter(None, [model["checkpoint"], model.get("text_encoder")]):
                locate(source)
        except CheckpointNotFound as error:
            raise LaunchError(f"model {model['name']!r}: {error}") from error


def check_environment(config: Mapping[str, Any]) -> None:
    """Raise LaunchError where files cannot be signed, the store of jobs is damaged, or a variable
    is invalid."""
    from api.audio.credentials import CredentialsError, Signer
    from api.proxy.proxy_limit import read_fixed_limit
    from api.settings import read_environment_keys, read_webhook_secrets
    from graph.jobs.jobs import check_store
    from graph.settings import AppArgs

    settings = AppArgs.model_validate(config["applications"][0]["args"]).ingress
    try:
        if settings.content_credentials:
            Signer(settings.content_credentials)
        read_webhook_secrets()
        check_store(settings.jobs)
        read_environment_keys()
        read_fixed_limit()
    except (CredentialsError, OSError, ValueError) as error:
        raise LaunchError(str(error)) from error


def set_environment() -> None:
    """Set the variables that Ray reads when it is imported; its processes inherit them."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ |= SERVE_ENVIRONMENT
    os.environ.pop("RAY_ADDRESS", None)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def start_ray() -> None:
    """Start a Ray that no other process on this machine can connect to."""
    import ray

    ray.init(
        address="local",
        namespace="serve",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    stop_on_signals()  # again, because Ray has replaced the handlers


def check_resources(config: Mapping[str, Any]) -> None:
    """Raise LaunchError where the machine has too few CPUs or GPUs for the fewest replicas."""
    import ray

    from graph.app import LEDGER_CPUS
    from graph.settings import AppArgs

    args = AppArgs.model_validate(config["applications"][0]["args"])
    parts, ledger = [args.ingress, args.media, *args.models], {"num_cpus": LEDGER_CPUS}
    has = ray.cluster_resources()
    for resource in ("num_cpus", "num_gpus"):
        needed = sum(getattr(part, resource) * part.least_replicas for part in parts)
        needed = round(needed + ledger.get(resource, 0), 6)  # sums of tenths are not exact
        available = has.get(resource.removeprefix("num_").upper().removesuffix("S"), 0.0)
        if needed > available:
            raise LaunchError(
                f"the configuration takes {needed:g} {resource}, this machine has {available:g}; "
                f"lower {resource} in its models"
            )


def deploy(config: Mapping[str, Any]) -> None:
    """Start Serve and deploy the configuration as `serve run` does, without waiting."""
    import logging

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    from deployments.ray_private import deploy_config

    deploy_config(config)


def wait_until_running(name: str) -> None:
    """Print a line for each deployment as it becomes healthy. Raises LaunchError."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus, DeploymentStatus

    begun = time.monotonic()
    loaded: set[str] = set()
    while True:
        status = serve.status().applications.get(name)
        for deployment, state in (status.deployments if status else {}).items():
            if state.status == DeploymentStatus.HEALTHY and deployment not in loaded:
                loaded.add(deployment)
                print_line("loading", f"{deployment}: ready after {time.monotonic() - begun:.1f} s")
        if status and status.status == ApplicationStatus.RUNNING:
            return
        if status and status.status == ApplicationStatus.DEPLOY_FAILED:
            failed = [d.message for d in status.deployments.values() if d.message]
            raise LaunchError("\n".join([status.message, *failed]))
        time.sleep(POLL_S)


def check_ready(address: str) -> None:
    """Raise LaunchError where the application runs but its parts do not fit together.

    An answer is kept for a second, so somebody's question may have been answered while a model was
    still loading: "not ready" is an error only where it lasts.
    """
    import httpx

    end = time.monotonic() + READY_S
    while True:
        try:
            answer = httpx.get(f"{address}/readyz", timeout=60, trust_env=False)
            if answer.status_code == 200:
                return
            error = answer.json()["error"]
            code, message = error["code"], error["message"]
        except (httpx.HTTPError, ValueError, KeyError) as problem:
            raise LaunchError(
                f"{address}/readyz: the answer is not valid: {problem!r}"
            ) from problem
        if code != "not_ready" or time.monotonic() > end:
            raise LaunchError(f"{address}/readyz: {message}")
        time.sleep(POLL_S)


def launch(config_path: Path, host: str | None, port: int | None) -> None:
    """Serve until a signal stops the program. Raises LaunchError."""
    set_environment()
    from launch.config_file import ConfigFileError, read_config_file

    try:
        config = read_config_file(config_path)
    except ConfigFileError as error:
        raise LaunchError(str(error)) from error
    check_sources(config)
    check_environment(config)
    http = config.setdefault("http_options", {})
    http |= {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    host, port = http.get("host", "0.0.0.0"), http.get("port", 8000)
    check_port(host, port)

    print_line("starting", "Ray and the HTTP server")
    import ray

    from deployments.ray_private import find_log_folder

    start_ray()
    try:
        check_resources(config)
        deploy(config)
        wait_until_running(config["applications"][0]["name"])
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        address = f"http://{reachable}:{port}"
        check_ready(address)
        print_line("ready", f"{address}, for browsers too   docs: {address}/docs   Ctrl-C stops")
        print_line("logs", str(find_log_folder()))
        print_line("try", f"curl {address}/generate/music -H 'content-type: application/json' "
            f"-d '{EXAMPLE}' -o music.wav")  # fmt: skip
        signal.pause()
    finally:
        print_line("stopping", "Ray and the HTTP server")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    stop_on_signals()
    try:
        launch(arguments.config, arguments.host, arguments.port)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0
