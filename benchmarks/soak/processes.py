"""Starts the server of a soak, and finds, measures and kills its processes."""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict

import psutil

from benchmarks.under_load import serving

MODELS = ("music", "sound", "codec")
KEYS = {"studio": "the key of clients that stay connected", "batch": "the key of jobs"}
"""The secret of each API key, by its name."""
SECRET = "whsec_" + "c2VjcmV0IG9mIGEgc29haywgbG9uZyBlbm91Z2g="
"""Signs the webhooks of `batch`."""
MAX_UPLOAD_S, MAX_WAIT_S = 60, 60
DECODER = "decoder"
"""The name of media's process that forks for each file."""
VICTIMS = ("codec", "music", DECODER, "ingress", "sound")
"""What is killed, in turn."""
LEAST_GROWTH_MB, MOST_GROWTH, MORE_FILES = 40.0, 0.1, 12
"""Growth that is no leak: so many MB or this share of the memory, and so many open files."""


class Measured(TypedDict):
    """The memory and the open files of a process."""

    pid: int
    age_s: int
    resident_mb: float
    unshared_mb: float
    files: int


def build_config(folder: Path) -> dict[str, Any]:
    """Return the shipped configuration with the models that are awake, two keys, and jobs."""
    config = serving.build_config(fast=False, max_wait_s=MAX_WAIT_S, names=MODELS)
    application = config["applications"][0]
    store = {"kind": "folder", "folder": str(folder)}
    jobs = {"store": store, "webhooks_to_private_addresses": True}
    application["args"]["ingress"] = {"jobs": jobs}
    (ingress,) = (one for one in application["deployments"] if one["name"] == "ingress")
    keys: list[dict[str, Any]] = [
        {"name": name, "sha256": [sha256(key.encode()).hexdigest()]} for name, key in KEYS.items()
    ]
    keys[1]["webhook_secrets"] = [SECRET]
    # The cache fills within the warm-up.
    limits = {"cache_bytes": 8_000_000, "max_upload_s": MAX_UPLOAD_S}
    ingress["user_config"] |= {"keys": keys, **limits}
    return config


def find_processes() -> dict[str, psutil.Process]:
    """Return the process of each deployment, of media's decoder, and of Serve itself."""
    found = dict(serving.list_processes())
    with suppress(KeyError, psutil.NoSuchProcess):
        for child in found["media"].children():
            if any("serve_files" in part for part in child.cmdline()):
                found[DECODER] = child
    return found


def measure_processes(now: float) -> dict[str, Measured]:
    """Return the memory and the open files of each process; `now` is in Unix seconds."""
    measured = {}
    for name, process in find_processes().items():
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            measured[name] = Measured(
                pid=process.pid,
                age_s=int(now - process.create_time()),
                resident_mb=round(memory.rss / 1e6, 1),
                unshared_mb=round(memory.uss / 1e6, 1),
                files=process.num_fds(),
            )
    return measured


def find_leaks(before: dict[str, Measured], after: dict[str, Measured]) -> list[str]:
    """Return what grew by more than is allowed, and what is missing."""
    leaks = [f"{name} is missing" for name in before.keys() - after.keys()]
    for name in before.keys() & after.keys():
        was, now = before[name], after[name]
        allowed = max(LEAST_GROWTH_MB, MOST_GROWTH * was["resident_mb"])
        if now["resident_mb"] > was["resident_mb"] + allowed:
            leaks.append(f"{name}: {was['resident_mb']} MB, then {now['resident_mb']} MB")
        if now["files"] > was["files"] + MORE_FILES:
            leaks.append(f"{name}: {was['files']} open files, then {now['files']}")
    return sorted(leaks)


def find_own_ends(samples: list[dict[str, Measured]], kills: list[str]) -> list[str]:
    """Return the processes that ended although nobody here had killed them."""
    found = []
    for name in sorted(set().union(*samples)):
        pids = {sample[name]["pid"] for sample in samples if name in sample}
        if (ends := len(pids) - 1 - kills.count(name)) > 0:
            found.append(f"{name}: {ends} times")
    return found
