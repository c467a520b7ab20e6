"""Tests that each of the operator's rules is checked before an object is applied."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from k8s.manifests import find_ray_service, render_overlay
from k8s.rules import find_problems
from k8s.yaml_text import dump_yaml

Service = dict[str, Any]


@pytest.fixture(scope="module")
def rendered() -> Service:
    return find_ray_service(render_overlay("ha"))


def cluster(service: Service) -> Service:
    found: Service = service["spec"]["rayClusterConfig"]
    return found


def worker(service: Service) -> Service:
    found: Service = cluster(service)["workerGroupSpecs"][1]
    return found


def pod(service: Service) -> Service:
    found: Service = worker(service)["template"]["spec"]
    return found


def head_env(service: Service, name: str) -> None:
    container = cluster(service)["headGroupSpec"]["template"]["spec"]["containers"][0]
    container.setdefault("env", []).append({"name": name, "value": "x"})


def incremental(service: Service, **options: Any) -> None:
    whole = {"gatewayClassName": "istio", "stepSizePercent": 10, "intervalSeconds": 5}
    kind = "NewClusterWithIncrementalUpgrade"
    service["spec"]["upgradeStrategy"] = {"type": kind, "clusterUpgradeOptions": whole | options}


def change_application(service: Service, change: Callable[[Service], None]) -> None:
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    change(config["applications"][0])
    service["spec"]["serveConfigV2"] = dump_yaml(config)


BROKEN: list[tuple[str, Callable[[Service], object]]] = [
    ("name 'a{48}'", lambda s: s["metadata"].update(name="a" * 48)),
    ("name '1music'", lambda s: s["metadata"].update(name="1music")),
    ("serveService", lambda s: s["spec"].update(serveService={"metadata": {"name": "x"}})),
    (
        "headService",
        lambda s: cluster(s)["headGroupSpec"].update(headService={"metadata": {"name": "x"}}),
    ),
    ("without `mode: token`", lambda s: cluster(s).update(authOptions={"secretName": "x"})),
    ("tokens need Ray 2.52", lambda s: cluster(s).update(rayVersion="2.51.1")),
    ("type 'Rolling'", lambda s: s["spec"].update(upgradeStrategy={"type": "Rolling"})),
    ("stepSizePercent", lambda s: incremental(s, stepSizePercent=50, maxSurgePercent=20)),
    ("intervalSeconds", lambda s: incremental(s, intervalSeconds=0)),
    ("gatewayClassName", lambda s: incremental(s, gatewayClassName="")),
    (
        "needs enableInTreeAutoscaling",
        lambda s: (incremental(s), cluster(s).pop("enableInTreeAutoscaling")),
    ),
    ("group gpu: its pods have no container", lambda s: pod(s).update(containers=[])),
    ("minReplicas .9. is above maxReplicas .8.", lambda s: worker(s).update(minReplicas=9)),
    ("labels go into", lambda s: worker(s)["rayStartParams"].update(labels="a=b")),
    (
        "exclude one another",
        lambda s: worker(s).update(resources={"CPU": "1"}, rayStartParams={"num-cpus": "1"}),
    ),
    ("restartPolicy", lambda s: pod(s).update(restartPolicy="Always")),
    (
        "set num-gpus",
        lambda s: pod(s)["containers"][0]["resources"].update(limits={"nvidia.com/gpu.shared": 1}),
    ),
    ("RAY_REDIS_ADDRESS", lambda s: head_env(s, "RAY_REDIS_ADDRESS")),
    ("REDIS_PASSWORD", lambda s: head_env(s, "REDIS_PASSWORD")),
    (
        "redis-password exclude",
        lambda s: cluster(s)["headGroupSpec"]["rayStartParams"].update({"redis-password": "x"}),
    ),
    (
        "terminationGracePeriodSeconds .30.",
        lambda s: pod(s).update(terminationGracePeriodSeconds=30),
    ),
    ("label pool: cpu", lambda s: cluster(s)["workerGroupSpecs"][0].pop("labels")),
    (
        "its config_hash",
        lambda s: change_application(s, lambda a: a["args"]["models"][0].update(num_gpus=0.1)),
    ),
    ("unknown key", lambda s: change_application(s, lambda a: a.update(import_pth="x"))),
    ("serveConfigV2", lambda s: s["spec"].pop("serveConfigV2")),
]


@pytest.mark.parametrize(("message", "breaks"), BROKEN, ids=[message for message, _ in BROKEN])
def test_each_rule_is_told_of(
    message: str, breaks: Callable[[Service], object], rendered: Service
) -> None:
    import re

    service = copy.deepcopy(rendered)
    assert find_problems(service) == []
    breaks(service)
    found = find_problems(service)
    assert any(re.search(message, problem) for problem in found), found
