"""Starts Ray Serve with one of its transports and deploys applications."""

import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from launch import start as launch

TRANSPORTS: dict[str, dict[str, str]] = {
    "actors": {},
    "grpc": {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"},
    "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
}
"""Environment variables of each transport; the first one is the shipped setting."""
OURS, NOOP = "/v1/generations", "/noop/noop"


def set_environment(transport: str = "actors") -> None:
    """Set the environment for a transport; call it before Ray is imported."""
    launch.set_environment()
    os.environ |= {**TRANSPORTS[transport], "OMP_NUM_THREADS": "1"}


def build_config(
    fast: bool, max_wait_s: float, names: Collection[str] = ("music", "codec")
) -> dict[str, Any]:
    """Return the shipped configuration with the models of these names, on a free port.

    With `fast`, models compute nothing, and the application that does nothing is added.
    """
    from launch.config_file import read_config_file

    config = read_config_file(launch.ROOT / "serve_config.yaml")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        config["http_options"]["port"] = probe.getsockname()[1]
    application = config["applications"][0]
    models = application["args"]["models"]
    application["args"]["models"] = [one for one in models if one["name"] in names]
    (ingress,) = (one for one in application["deployments"] if one["name"] == "ingress")
    ingress["user_config"] |= {"cache_bytes": 0, "max_wait_s": max_wait_s}
    if fast:
        application["import_path"] = "benchmarks.under_load.fast:build"
        application["deployments"] = [ingress]
        for model in application["args"]["models"]:
            model["num_cpus"] = 0.1
        config["applications"].append(
            {
                "name": "noop",
                "route_prefix": "/noop",
                "import_path": "benchmarks.under_load.noop:application",
            }
        )
    return config


@contextmanager
def run_serve(config: dict[str, Any]) -> Iterator[str]:
    """Serve a configuration; yield the address."""
    import ray

    launch.start_ray()
    try:
        launch.deploy(config)
        for application in config["applications"]:
            launch.wait_until_running(application["name"])
        yield f"http://127.0.0.1:{config['http_options']['port']}"
    finally:
        ray.shutdown()


def list_processes() -> Iterator[tuple[str, psutil.Process]]:
    """Yield each replica and each of Serve's processes, with the name of its deployment."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            name = next(iter(process.cmdline()), "")
            if name.startswith(("ray::ServeReplica", "ray::Proxy", "ray::ServeController")):
                # Once a process works its title goes on after a dot.
                yield name.removeprefix("ray::").split(".")[0].split(":")[-1], process


def measure_memory() -> dict[str, float]:
    """Return the unshared memory in MB of each replica and of Serve's processes."""
    found = {}
    for name, process in list_processes():
        with suppress(psutil.NoSuchProcess):  # some of Ray's processes last for a moment
            found[name] = round(process.memory_full_info().uss / 1e6, 1)
    return found
