"""Tests `python -m k8s` against a real API server."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from k8s import cluster, rollout
from k8s.cluster import RAY, RAY_SERVICE, connect_cluster
from k8s.errors import K8sError, TimedOut
from k8s.manifests import find_ray_service, list_overlays, render_overlay
from k8s.serve_config import OVERLAYS, build_serve_config
from tests.k8s.api_server import ApiServer
from tests.k8s.conftest import Overlay, Run

pytestmark = pytest.mark.kubernetes
PLURAL = ("ray.io", "v1", "audio", "rayservices")


@pytest.fixture
def overlay(tmp_path: Path, request: pytest.FixtureRequest) -> Overlay:
    name = "t" + str(abs(hash(request.node.name)))[:12]
    return Overlay(tmp_path / "overlay", name, build_serve_config(OVERLAYS / "cpu-demo"))


@pytest.fixture
def objects(api_server: ApiServer) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api_server.client())


def read_service(objects: client.CustomObjectsApi, overlay: Overlay) -> dict[str, Any]:
    found: dict[str, Any] = objects.get_namespaced_custom_object(*PLURAL, overlay.name)
    return found


def set_running(objects: client.CustomObjectsApi, overlay: Overlay) -> None:
    """Set the status that the operator publishes for a running service."""
    service = read_service(objects, overlay)
    now = "2026-01-01T00:00:00Z"
    deployments = {"music": {"status": "HEALTHY"}}
    running = {"status": "RUNNING", "serveDeploymentStatuses": deployments}
    service["status"] = {
        "observedGeneration": service["metadata"]["generation"],
        "numServeEndpoints": 1,
        "activeServiceStatus": {
            "rayClusterName": "x",
            "applicationStatuses": {"audiocraft": running},
        },
        "conditions": [
            {"type": kind, "status": is_so, "reason": "X", "message": "", "lastTransitionTime": now}
            for kind, is_so in (("Ready", "True"), ("UpgradeInProgress", "False"))
        ],
    }
    objects.replace_namespaced_custom_object_status(*PLURAL, overlay.name, service)


@pytest.mark.parametrize("name", list_overlays())
def test_the_crds_schema_takes_every_overlay(
    name: str, api_server: ApiServer, tmp_path: Path
) -> None:
    here = connect_cluster(str(api_server.kubeconfig(tmp_path / "config")), None, None)
    applied = here.apply_manifest(find_ray_service(render_overlay(name)), dry_run=True)
    assert applied["spec"]["serveConfigV2"]


def test_what_is_applied_again_changes_nothing(
    overlay: Overlay, run: Run, objects: client.CustomObjectsApi
) -> None:
    done = run("--json", "deploy", str(overlay))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["applied"] == [f"RayService {overlay.name}"]
    before = read_service(objects, overlay)["metadata"]["resourceVersion"]
    assert run("deploy", str(overlay)).exit_code == 0
    assert read_service(objects, overlay)["metadata"]["resourceVersion"] == before


def test_a_dry_run_applies_nothing(
    overlay: Overlay, run: Run, objects: client.CustomObjectsApi
) -> None:
    assert run("deploy", str(overlay), "--dry-run").exit_code == 0
    with pytest.raises(client.ApiException) as missing:
        read_service(objects, overlay)
    assert missing.value.status == 404


def test_anothers_field_is_not_taken(
    overlay: Overlay,
    run: Run,
    objects: client.CustomObjectsApi,
    api_server: ApiServer,
    tmp_path: Path,
) -> None:
    assert run("deploy", str(overlay)).exit_code == 0
    body = {
        "apiVersion": RAY,
        "kind": RAY_SERVICE,
        "metadata": {"name": overlay.name},
        "spec": {"rayClusterDeletionDelaySeconds": 5},
    }
    here = connect_cluster(str(api_server.kubeconfig(tmp_path / "other")), None, None)
    here._dynamic.server_side_apply(
        here._find_resource(RAY, RAY_SERVICE),
        body=body,
        namespace="audio",
        field_manager="someone-else",
        force_conflicts=True,
    )
    overlay.change("/spec/rayClusterDeletionDelaySeconds", 900)
    done = run("deploy", str(overlay))
    assert done.exit_code == 1
    assert "someone-else" in done.stderr
    assert "rayClusterDeletionDelaySeconds" in done.stderr
    assert read_service(objects, overlay)["spec"]["rayClusterDeletionDelaySeconds"] == 5


def test_an_unknown_field_is_refused_and_named(overlay: Overlay, run: Run) -> None:
    overlay.change("/spec/rayClusterConfig/headGroupSpecs", {})
    done = run("deploy", str(overlay))
    assert (done.exit_code, "headGroupSpecs" in done.stderr) == (1, True), done.stderr


def test_a_rule_of_the_crd_is_told_of(overlay: Overlay, run: Run) -> None:
    backend = "/spec/rayClusterConfig/gcsFaultToleranceOptions"
    overlay.change(backend, {"backend": "redis", "redisAddress": "redis://r:6379"})
    assert run("deploy", str(overlay)).exit_code == 0
    overlay.change(backend, {"backend": "rocksdb"})
    done = run("deploy", str(overlay))
    assert (done.exit_code, "backend is immutable" in done.stderr) == (1, True), done.stderr


def test_what_the_operator_would_refuse_is_not_applied(
    overlay: Overlay, run: Run, objects: client.CustomObjectsApi
) -> None:
    overlay.change("/spec/rayClusterConfig/authOptions", {"secretName": "x"})
    done = run("--json", "deploy", str(overlay))
    assert done.exit_code == 1
    assert "mode: token" in json.loads(done.stdout)["error"]["message"]
    with pytest.raises(client.ApiException):
        read_service(objects, overlay)


def test_a_kind_that_the_cluster_lacks_is_named(run: Run) -> None:
    done = run("deploy", "gpu")
    assert done.exit_code == 1
    assert "the cluster has no such kind" in done.stderr


def test_a_wrong_token_is_told_of(
    overlay: Overlay, run: Run, api_server: ApiServer, tmp_path: Path
) -> None:
    wrong = api_server.kubeconfig(tmp_path / "wrong", token="nobody")
    done = run("deploy", str(overlay), kubeconfig=wrong)
    assert (done.exit_code, "401" in done.stderr) == (4, True), done.stderr


def test_a_server_that_does_not_answer_is_given_up(
    overlay: Overlay,
    run: Run,
    api_server: ApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT_S", (0.5, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        mute = api_server.kubeconfig(tmp_path / "mute", url=url)
        done = run("status", "--name", overlay.name, kubeconfig=mute)
    assert (done.exit_code, "does not answer" in done.stderr) == (4, True), done.stderr


def test_a_context_that_is_not_there_is_told_of(overlay: Overlay, run: Run) -> None:
    done = run("--context", "nowhere", "status")
    assert (done.exit_code, "nowhere" in done.stderr) == (1, True), done.stderr


def test_what_is_not_there_is_told_of(run: Run) -> None:
    done = run("status", "--name", "nothing")
    assert (done.exit_code, "not found" in done.stderr) == (1, True), done.stderr


def test_status_rollback_and_delete(
    overlay: Overlay, run: Run, objects: client.CustomObjectsApi
) -> None:
    assert run("deploy", str(overlay)).exit_code == 0
    assert run("rollback", "--name", overlay.name).exit_code == 1
    first = read_service(objects, overlay)["spec"]
    overlay.change("/spec/rayClusterDeletionDelaySeconds", 900)
    assert run("deploy", str(overlay)).exit_code == 0
    assert read_service(objects, overlay)["spec"]["rayClusterDeletionDelaySeconds"] == 900
    assert run("rollback", "--name", overlay.name).exit_code == 0
    assert read_service(objects, overlay)["spec"] == first
    assert run("rollback", "--name", overlay.name).exit_code == 0
    assert read_service(objects, overlay)["spec"]["rayClusterDeletionDelaySeconds"] == 900
    set_running(objects, overlay)
    shown = run("status", "--name", overlay.name)
    assert "music" in shown.stdout
    assert "HEALTHY" in shown.stdout
    assert run("delete", str(overlay)).exit_code == 0
    with pytest.raises(client.ApiException):
        read_service(objects, overlay)
    assert run("delete", str(overlay)).exit_code == 0


def test_a_watch_that_is_too_old_is_told_apart(
    overlay: Overlay, run: Run, api_server: ApiServer, tmp_path: Path
) -> None:
    assert run("deploy", str(overlay)).exit_code == 0
    here = connect_cluster(str(api_server.kubeconfig(tmp_path / "config")), None, None)
    old = here.get_object(RAY, RAY_SERVICE, overlay.name)
    for seconds in (901, 902, 903):
        overlay.change("/spec/rayClusterDeletionDelaySeconds", seconds)
        assert run("deploy", str(overlay)).exit_code == 0
    api_server.compact()
    api_server.kill()
    api_server.start()  # the restart empties its cache, which still has the old versions
    with pytest.raises(cluster.Expired):
        list(here.watch_service(old, 5))


def test_waiting_outlives_a_restart_of_the_server(
    overlay: Overlay,
    run: Run,
    api_server: ApiServer,
    objects: client.CustomObjectsApi,
    tmp_path: Path,
) -> None:
    assert run("deploy", str(overlay)).exit_code == 0
    here = connect_cluster(str(api_server.kubeconfig(tmp_path / "config")), None, None)
    wanted = rollout.read_expected_hash(here.get_object(RAY, RAY_SERVICE, overlay.name))
    said: list[str] = []
    found: list[Any] = []
    waiting = threading.Thread(
        target=lambda: found.append(
            rollout.wait_until_ready(here, overlay.name, 120, lambda: wanted, said.append)
        )
    )
    waiting.start()
    wait_until(lambda: said)
    api_server.kill()
    wait_until(lambda: any("waiting for the API server" in message for message in said))
    api_server.start()
    set_running(objects, overlay)
    waiting.join(60)
    assert found, said


def test_waiting_ends_with_what_was_last_seen(
    overlay: Overlay,
    run: Run,
    api_server: ApiServer,
    objects: client.CustomObjectsApi,
    tmp_path: Path,
) -> None:
    assert run("deploy", str(overlay)).exit_code == 0
    here = connect_cluster(str(api_server.kubeconfig(tmp_path / "config")), None, None)
    with pytest.raises(TimedOut, match="the operator has not seen the change yet"):
        rollout.wait_until_ready(here, overlay.name, 1, lambda: None, print)
    set_running(objects, overlay)
    with pytest.raises(TimedOut, match="still serves old, not yet"):
        rollout.wait_until_ready(here, overlay.name, 1, lambda: "old", print)

    def away() -> None:
        raise K8sError("no route")

    with pytest.raises(TimedOut, match="does not answer yet: no route"):
        rollout.wait_until_ready(here, overlay.name, 1, away, print)


def wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
