"""Tests deployment, update, failure and rollback with a simulated operator and a real Ray."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from k8s.__main__ import app
from k8s.serve_config import OVERLAYS, build_serve_config, merge_changes
from tests.k8s.api_server import ApiServer, free_port
from tests.k8s.api_server_proxy import ApiServerProxy
from tests.k8s.conftest import Overlay
from tests.k8s.local_ray import LocalRay
from tests.k8s.operator import Operator

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
NAME = "studio"
Config = dict[str, Any]


def build_small_config(port: int) -> Config:
    """Return the configuration of `cpu-demo` with one music model, for a local port."""
    config = build_serve_config(OVERLAYS / "cpu-demo")
    application = config["applications"][0]
    application["args"]["models"] = [
        model for model in application["args"]["models"] if model["name"] in ("music", "codec")
    ]
    http = {"host": "127.0.0.1", "port": port}
    return merge_changes(config, {"proxy_location": "HeadOnly", "http_options": http})  # type: ignore[no-any-return]


def change_ingress(config: Config, **user_config: Any) -> Config:
    """Return the configuration with changes of the ingress' `user_config`."""
    changed = copy.deepcopy(config)
    ingress = next(
        one for one in changed["applications"][0]["deployments"] if one["name"] == "ingress"
    )
    ingress["user_config"] |= user_config
    return changed


class Stage:
    """A cluster as the tool sees it: an API server, an operator and Ray."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.ray = LocalRay()
        services = {
            f"{NAME}-serve-svc:8000": self.address,
            f"{NAME}-head-svc:8265": self.ray.dashboard,
        }
        self.proxy = ApiServerProxy(api.url, services)
        self.proxy.secrets["audiocraft-cluster"] = {"auth_token": self.ray.token}
        self.operator = Operator(api.client(), NAME, self.ray, self.proxy)
        self._kubeconfig = api.kubeconfig(folder / "kubeconfig", url=self.proxy.url)
        self.config = build_small_config(self.port)
        self.overlay = Overlay(folder / "overlay", NAME, self.config)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["--kubeconfig", str(self._kubeconfig), *arguments])

    def deploy(self, config: Config) -> None:
        self.overlay.set_config(config)
        done = self.run("deploy", str(self.overlay))
        assert done.exit_code == 0, done.output

    def wait(self) -> Result:
        return self.run("--json", "wait", "--name", NAME, "--timeout", "240")

    def generate(self, text: str = "calm piano") -> httpx.Response:
        body = {"text": text, "duration": 1, "seed": 1}
        return httpx.post(f"{self.address}/generate/music", json=body, timeout=120)

    def replicas(self) -> set[str]:
        deployments = self.ray.applications()["audiocraft"]["deployments"]
        return {r["replica_id"] for one in deployments.values() for r in one["replicas"]}

    def close(self) -> None:
        self.operator.close()
        self.proxy.close()
        self.ray.close()


@pytest.fixture
def stage(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("k")
    found = Stage(api_server, folder)
    yield found
    found.close()


def test_from_nothing_through_a_failure_and_back(stage: Stage) -> None:
    stage.deploy(stage.config)
    done = stage.wait()
    assert done.exit_code == 0, done.output
    first = json.loads(done.stdout)["config_hash"]
    clip = stage.generate()
    assert clip.status_code == 200
    assert len(clip.content) > 30_000
    replicas = stage.replicas()

    # An update in place restarts no replica. The operator reports success too early.
    stage.deploy(change_ingress(stage.config, max_text_chars=20))
    done = stage.wait()
    assert done.exit_code == 0, done.output
    second = json.loads(done.stdout)["config_hash"]
    assert second != first
    assert stage.operator.false_successes == 1
    assert stage.replicas() == replicas
    assert stage.generate("x" * 30).status_code == 422

    # A configuration that cannot start fails with its reason, and the old replicas run on.
    broken = change_ingress(stage.config, max_text_chars=20)
    broken["applications"][0]["args"]["models"][0]["checkpoint"] = "/nowhere/at-all"
    stage.deploy(broken)
    done = stage.wait()
    assert done.exit_code == 1, done.output
    assert "/nowhere/at-all" in json.loads(done.stdout)["error"]["message"]
    assert "ServeDeployFailed" in done.stderr
    assert stage.generate().status_code == 200

    # A rollback applies the previous configuration.
    done = stage.run("rollback", "--name", NAME)
    assert done.exit_code == 0, done.output
    done = stage.wait()
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config_hash"] == second
    assert stage.generate().content == clip.content

    done = stage.run("logs", "ingress", "--name", NAME)
    assert done.exit_code == 0, done.output
    assert "POST /generate/music 200" in done.stdout
    done = stage.run("logs", "nothing", "--name", NAME)
    assert (done.exit_code, "no replica" in done.stderr) == (1, True)
    done = stage.run("status", "--name", NAME)
    assert f"{NAME}: ready" in done.stdout

    # The operator reports an object that it refuses only by a condition.
    stage.overlay.change("/metadata/labels", {"refuse-me": "1"})
    stage.overlay.change("/spec/rayClusterDeletionDelaySeconds", 800)
    assert stage.run("deploy", str(stage.overlay)).exit_code == 0
    done = stage.wait()
    assert done.exit_code == 1, done.output
    assert "ValidationFailed" in done.stderr
