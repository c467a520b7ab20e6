"""What KubeRay's operator, and only it, would refuse after the fact; and rules of our own.

The first are of KubeRay 1.7's `validation.go`; the API server checks none of them, and the operator
tells of them by a condition that is easily overlooked.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from graph.settings import AppArgs
from k8s.manifests import Manifest
from k8s.serve_config import config_hash, hash_in
from launch.config_file import ConfigFileError, check_config

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 47
SET_BY_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


def problems(service: Manifest) -> list[str]:
    """Return what is wrong with a RayService, a line each."""
    cluster = service["spec"]["rayClusterConfig"]
    found = [*_names(service), *_authentication(cluster), *_upgrade(service["spec"])]
    groups = [("head", cluster["headGroupSpec"])]
    groups += [(group["groupName"], group) for group in cluster.get("workerGroupSpecs", [])]
    for name, group in groups:
        found += [f"group {name}: {problem}" for problem in _group(group)]
    found += _fault_tolerance(cluster)
    config, unusable = _config(service)
    return [*found, *unusable, *(_fits(config, groups[1:]) if config else [])]


def _names(service: Manifest) -> Iterator[str]:
    name = service["metadata"]["name"]
    if len(name) > LONGEST_NAME or not DNS_1035.fullmatch(name):
        yield (
            f"name {name!r}: at most {LONGEST_NAME} lower-case letters, digits and dashes, "
            "a letter first"
        )
    if (service["spec"].get("serveService") or {}).get("metadata", {}).get("name"):
        yield "serveService: KubeRay names it itself; leave out its name"
    head_service = service["spec"]["rayClusterConfig"]["headGroupSpec"].get("headService") or {}
    if head_service.get("metadata", {}).get("name"):
        yield "headService: KubeRay names it itself; leave out its name"


def _authentication(cluster: Manifest) -> Iterator[str]:
    options = cluster.get("authOptions")
    if options is None:
        return
    if "mode" not in options:
        yield "authOptions: without `mode: token` authentication is off, and nothing says so"
    version = tuple(int(part) for part in cluster.get("rayVersion", "0.0").split(".")[:2])
    if options.get("mode") == "token" and version < (2, 52):
        yield f"authOptions: tokens need Ray 2.52, rayVersion is {cluster.get('rayVersion')}"


def _upgrade(spec: Manifest) -> Iterator[str]:
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
        yield "upgradeStrategy: gatewayClassName is needed"


def _group(group: Manifest) -> Iterator[str]:
    pod = group["template"]["spec"]
    if not pod.get("containers"):
        yield "its pods have no container"
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
    if least > most:
        yield f"minReplicas ({least}) is above maxReplicas ({most})"
    started = group.get("rayStartParams") or {}
    if "labels" in started:
        yield "labels go into the group's `labels`, not into rayStartParams"
    if group.get("resources") and (both := [key for key in SET_BY_RESOURCES if key in started]):
        yield f"`resources` and rayStartParams' {', '.join(both)} exclude one another"
    if pod.get("restartPolicy") not in (None, "Never"):
        yield "autoscaler v2 needs restartPolicy Never, or none"
    limits = [c.get("resources", {}).get("limits", {}) for c in pod.get("containers", [])]
    if any("nvidia.com/gpu.shared" in limit for limit in limits) and "num-gpus" not in started:
        yield "nvidia.com/gpu.shared is not counted as a GPU: set num-gpus in rayStartParams"


def _fault_tolerance(cluster: Manifest) -> Iterator[str]:
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


def _config(service: Manifest) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the Serve configuration, or what is wrong with it."""
    try:
        config = yaml.safe_load(service["spec"].get("serveConfigV2") or "")
        check_config(config, "serveConfigV2")
    except (yaml.YAMLError, ConfigFileError) as error:
        return None, str(error).splitlines()
    if hash_in(config) != config_hash(config):
        return config, ["serveConfigV2: its config_hash is not its own: python -m k8s generate"]
    return config, []


def _fits(config: dict[str, Any], groups: list[tuple[str, Manifest]]) -> Iterator[str]:
    """Yield where the groups of workers do not fit what is served on them."""
    args = AppArgs.model_validate(config["applications"][0]["args"])
    placed = [args.ingress, args.media, *args.models]
    pools = {(group.get("labels") or {}).get("pool") for _, group in groups}
    for pool in sorted({one.pool for one in placed if one.pool} - pools):
        yield f"serveConfigV2: no group of workers has the label pool: {pool}"
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
