"""Checks a RayService by the rules of KubeRay's operator, and by rules of this project.

The operator's rules are those of `validation.go` in KubeRay 1.7. The API server checks none of
them, and the operator reports a violation only as a condition, after the object is applied.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from graph.settings import AppArgs
from k8s.manifests import Manifest
from k8s.serve_config import hash_config, read_hash
from launch.config_file import ConfigFileError, check_config

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 47
SET_BY_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


def find_problems(service: Manifest) -> list[str]:
    """Return the problems of a RayService, one line each."""
    cluster = service["spec"]["rayClusterConfig"]
    found = [
        *_check_names(service),
        *_check_authentication(cluster),
        *_check_upgrade(service["spec"]),
    ]
    groups = [("head", cluster["headGroupSpec"])]
    groups += [(group["groupName"], group) for group in cluster.get("workerGroupSpecs", [])]
    for name, group in groups:
        found += [f"group {name}: {problem}" for problem in _check_group(group)]
    found += _check_fault_tolerance(cluster)
    config, config_problems = _read_config(service)
    return [*found, *config_problems, *(_check_placement(config, groups[1:]) if config else [])]


def _check_names(service: Manifest) -> Iterator[str]:
    name = service["metadata"]["name"]
    if len(name) > LONGEST_NAME or not DNS_1035.fullmatch(name):
        yield (
            f"name {name!r}: use at most {LONGEST_NAME} lower-case letters, digits and dashes, "
            "beginning with a letter"
        )
    if (service["spec"].get("serveService") or {}).get("metadata", {}).get("name"):
        yield "serveService: KubeRay sets its name; leave out metadata.name"
    head_service = service["spec"]["rayClusterConfig"]["headGroupSpec"].get("headService") or {}
    if head_service.get("metadata", {}).get("name"):
        yield "headService: KubeRay sets its name; leave out metadata.name"


def _check_authentication(cluster: Manifest) -> Iterator[str]:
    options = cluster.get("authOptions")
    if options is None:
        return
    if "mode" not in options:
        yield "authOptions: without `mode: token` authentication is off; set the mode"
    version = tuple(int(part) for part in cluster.get("rayVersion", "0.0").split(".")[:2])
    if options.get("mode") == "token" and version < (2, 52):
        yield f"authOptions: tokens need Ray 2.52, rayVersion is {cluster.get('rayVersion')}"


def _check_upgrade(spec: Manifest) -> Iterator[str]:
    strategy = spec.get("upgradeStrategy") or {}
    kind, options = strategy.get("type"), strategy.get("clusterUpgradeOptions")
    if kind not in (None, "NewCluster", "NewClusterWithIncrementalUpgrade", "None"):
        yield f"upgradeStrategy.type {kind!r}: NewCluster, NewClusterWithIncrementalUpgrade or None"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "upgradeStrategy: an incremental upgrade needs enableInTreeAutoscaling"
    if not options:
        yield "upgradeStrategy: an incremental upgrade needs clusterUpgradeOptions"
        return
    step, surge = options.get("stepSizePercent", 0), options.get("maxSurgePercent", 100)
    if not 0 < step <= surge <= 100:
        yield f"upgradeStrategy: 0 < stepSizePercent ({step}) <= maxSurgePercent ({surge}) <= 100"
    if options.get("intervalSeconds", 0) <= 0:
        yield "upgradeStrategy: intervalSeconds must be above 0"
    if not options.get("gatewayClassName"):
        yield "upgradeStrategy: set gatewayClassName"


def _check_group(group: Manifest) -> Iterator[str]:
    pod = group["template"]["spec"]
    if not pod.get("containers"):
        yield "its pods have no container; add one"
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
    if least > most:
        yield f"minReplicas ({least}) is above maxReplicas ({most})"
    started = group.get("rayStartParams") or {}
    if "labels" in started:
        yield "labels go into the group's `labels`, not into rayStartParams"
    if group.get("resources") and (both := [key for key in SET_BY_RESOURCES if key in started]):
        yield f"`resources` and rayStartParams' {', '.join(both)} exclude one another"
    if pod.get("restartPolicy") not in (None, "Never"):
        yield "autoscaler v2 needs restartPolicy Never; set it, or leave it out"
    limits = [c.get("resources", {}).get("limits", {}) for c in pod.get("containers", [])]
    if any("nvidia.com/gpu.shared" in limit for limit in limits) and "num-gpus" not in started:
        yield "Ray does not count nvidia.com/gpu.shared as a GPU: set num-gpus in rayStartParams"


def _check_fault_tolerance(cluster: Manifest) -> Iterator[str]:
    if not cluster.get("gcsFaultToleranceOptions"):
        return
    head = cluster["headGroupSpec"]
    names = {
        env["name"] for c in head["template"]["spec"]["containers"] for env in c.get("env", [])
    }
    for taken in sorted(names & {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"}):
        yield f"gcsFaultToleranceOptions sets {taken} on the head; leave it out there"
    if "redis-password" in (head.get("rayStartParams") or {}):
        yield "gcsFaultToleranceOptions.redisPassword and redis-password exclude one another"


def _read_config(service: Manifest) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the Serve configuration, None if it is invalid, and its problems."""
    try:
        config = yaml.safe_load(service["spec"].get("serveConfigV2") or "")
        check_config(config, "serveConfigV2")
    except (yaml.YAMLError, ConfigFileError) as error:
        return None, str(error).splitlines()
    if read_hash(config) != hash_config(config):
        return config, ["serveConfigV2: its config_hash is outdated; run python -m k8s generate"]
    return config, []


def _check_placement(config: dict[str, Any], groups: list[tuple[str, Manifest]]) -> Iterator[str]:
    """Yield the worker groups whose labels or shutdown times do not fit the served models."""
    args = AppArgs.model_validate(config["applications"][0]["args"])
    placed = [args.ingress, args.media, *args.models]
    pools = {(group.get("labels") or {}).get("pool") for _, group in groups}
    for pool in sorted({one.pool for one in placed if one.pool} - pools):
        yield f"serveConfigV2: no worker group has the label pool: {pool}"
    longest = max(one.grace_s for one in placed)
    for name, group in groups:
        pod = group["template"]["spec"]
        env = {e["name"]: e.get("value") for c in pod["containers"] for e in c.get("env", [])}
        drain, grace = float(env.get(DRAIN) or 30), pod.get("terminationGracePeriodSeconds", 30)
        if not grace > drain > longest:
            yield (
                f"group {name}: terminationGracePeriodSeconds ({grace:g}) must be above {DRAIN} "
                f"({drain:g}), and that above the models' grace_s ({longest:g})"
            )
