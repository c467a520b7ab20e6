"""Tests each overlay, rendered by kustomize, against Kubernetes' schemas."""

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from k8s.manifests import find_ray_service, list_overlays, render_overlay
from k8s.rules import find_problems

CUSTOM = {"RayService", "PodMonitor"}
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def list_groups(service: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = service["spec"]["rayClusterConfig"]
    yield from [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("name", list_overlays())
def test_core_kinds_are_strictly_valid(name: str) -> None:
    objects = render_overlay(name)
    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    for group in list_groups(find_ray_service(objects)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
        pod |= {"spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", list_overlays())
def test_the_operator_would_take_it(name: str) -> None:
    assert find_problems(find_ray_service(render_overlay(name))) == []


@pytest.mark.parametrize("name", list_overlays())
def test_pods_keep_to_the_restricted_standard(name: str) -> None:
    service = find_ray_service(render_overlay(name))
    for group in list_groups(service):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == RESTRICTED, container["name"]
    options = service["spec"]["rayClusterConfig"]["autoscalerOptions"]
    assert options["securityContext"] == RESTRICTED


@pytest.mark.parametrize("name", list_overlays())
def test_selectors_select_our_pods(name: str) -> None:
    objects = render_overlay(name)
    pods = [
        group["template"]["metadata"]["labels"] for group in list_groups(find_ray_service(objects))
    ]
    pods += [
        one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "StatefulSet"
    ]
    for one in objects:
        if one["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            wanted = one["spec"]["selector"]["matchLabels"]
        elif one["kind"] == "NetworkPolicy":
            wanted = one["spec"]["podSelector"]["matchLabels"]
        else:
            continue
        assert any(wanted.items() <= labels.items() for labels in pods), one["metadata"]["name"]


@pytest.mark.parametrize("name", list_overlays())
def test_what_pods_mount_is_there(name: str) -> None:
    objects = render_overlay(name)
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for group in list_groups(find_ray_service(objects)):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in there
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("configMapKeyRef")
                assert not source or ("ConfigMap", source["name"]) in there


def test_redis_is_told_of_nothing_that_kuberay_sets_itself() -> None:
    service = find_ray_service(render_overlay("ha"))
    options = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"]["key"] == "redis-password"
    assert len(service["spec"]["rayClusterConfig"]["workerGroupSpecs"]) == 2
