"""The shipped application, as tests deploy it, and its processes."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from launch.config_file import read_config_file
from tests.conftest import Checkpoints
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parents[1]
APPLICATION = "audiocraft"


def configuration(
    checkpoints: Checkpoints, store: dict[str, str], http: dict[str, Any], tunables: dict[str, Any]
) -> dict[str, Any]:
    """Return the shipped file's, with small untrained models, and jobs kept in `store`.

    The same request twice is made twice; and much is let in, the ledger or not.
    """
    config = copy.deepcopy(read_config_file(ROOT / "serve_config.yaml"))
    config["http_options"] |= {"port": free_port()} | http
    application = config["applications"][0]
    # Tests of other kinds add small ones of their own.
    awake = ("music", "sound", "codec")
    models = [one for one in application["args"]["models"] if one["name"] in awake]
    application["args"]["models"] = models
    for model in models:
        if model["kind"] == "encodec":
            model["checkpoint"] = str(checkpoints.codec)
        else:
            model |= {
                "checkpoint": str(checkpoints.music),
                "text_encoder": checkpoints.text_encoder,
            }
    application["args"]["ingress"] = {"jobs": {"store": store}}
    (ingress,) = (one for one in application["deployments"] if one["name"] == "ingress")
    much = {"cache_bytes": 0, "local_row_seconds": 5000, "max_wait_s": 5000}
    ingress["user_config"] |= much | tunables
    return config


def processes(name: str) -> list[psutil.Process]:
    """Return those of Ray, started by this one, whose name begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any(part.startswith(f"ray::{name}") for part in process.cmdline()):
                found.append(process)
    return found


def replicas(deployment: str) -> list[psutil.Process]:
    """Return the processes of a deployment's replicas."""
    return processes(f"ServeReplica:{APPLICATION}:{deployment}")
