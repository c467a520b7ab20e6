"""Runs the commands of README.md and docs/kubernetes.md, as a shell would."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile

from launch.start import ROOT
from tests.k8s.api_server import ApiServer
from tests.k8s.api_server_proxy import ApiServerProxy
from tests.k8s.local_ray import LocalRay
from tests.k8s.operator import Operator

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]
NAME, ADDRESS = "audiocraft", "http://127.0.0.1:8000"
TOOL = ".venv/bin/python -m k8s "


def read_commands(document: str, heading: str) -> list[str]:
    """Return the commands of the first block under a heading, one a line, without comments."""
    section = (ROOT / document).read_text().split(f"## {heading}\n")[1]
    block = re.search(r"```\n(.*?)```", section, re.S)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    return [re.sub(r" +#.*", "", line).strip() for line in lines]


class Cluster:
    """A cluster for the commands: an API server with an operator, and Serve on port 8000."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.ray = LocalRay()
        services = {
            f"{NAME}-serve-svc:8000": ADDRESS,
            f"{NAME}-head-svc:8265": self.ray.dashboard,
        }
        kinds = {"policy/v1": "PodDisruptionBudget", "networking.k8s.io/v1": "NetworkPolicy"}
        self.proxy = ApiServerProxy(api.url, services, kinds)
        self.operator = Operator(api.client(), NAME, self.ray, self.proxy)
        kubeconfig = api.kubeconfig(folder / "kubeconfig", url=self.proxy.url)
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def run(self, command: str) -> str:
        assert command.startswith(TOOL), command
        done = subprocess.run(
            [sys.executable, "-m", "k8s", *shlex.split(command.removeprefix(TOOL))],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        self.operator.close()
        self.proxy.close()
        self.ray.close()


@pytest.fixture
def cluster(api_server: ApiServer, tmp_path: Path) -> Iterator[Cluster]:
    with pytest.raises(httpx.ConnectError):  # the commands use port 8000, which must be free
        httpx.get(ADDRESS)
    found = Cluster(api_server, tmp_path)
    yield found
    found.close()


def test_line_by_line(cluster: Cluster, tmp_path: Path) -> None:
    build, *readme = read_commands("README.md", "Kubernetes")
    assert (
        build == "docker build -t audiocraft-serve:0.1.0 ."
    )  # tests/image executes the Dockerfile
    again, *validate_to_wait, forward, ask = read_commands("docs/kubernetes.md", "The shortest way")
    assert again == build
    for command in (*readme, *validate_to_wait):
        cluster.run(command)
    assert cluster.proxy.applied >= {"PodDisruptionBudget", "NetworkPolicy"}
    # There are no pods to forward to; the application listens on kubectl's local port.
    inner = re.fullmatch(r"\$\((.+)\) &", forward)
    assert inner
    assert cluster.run(inner[1]).split()[-2:] == [f"service/{NAME}-serve-svc", "8000:8000"]
    subprocess.run(["bash", "-euo", "pipefail", "-c", f"{ask} --fail"], cwd=tmp_path, check=True)
    assert soundfile.info(tmp_path / "music.wav").duration == 5.0
