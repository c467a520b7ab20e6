"""Starts a Ray node with its dashboard on this machine, as KubeRay starts one in a pod."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from launch.start import ROOT, SERVE_ENVIRONMENT
from tests.k8s.api_server import free_port


class LocalRay:
    """A Ray node; `dashboard` is the address of its dashboard, `headers` have the token."""

    def __init__(self) -> None:
        # The folder has a short name: the path of a Unix socket has at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.token = secrets.token_hex(32)
        self.headers = {"X-Ray-Authorization": f"Bearer {self.token}"}
        port = free_port()
        self.dashboard = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            **SERVE_ENVIRONMENT,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("RAY_ADDRESS", None)
        ray = Path(sys.executable).parent / "ray"
        options = {
            "port": free_port(),
            "dashboard-port": port,
            "dashboard-agent-listen-port": free_port(),
            "metrics-export-port": free_port(),
            "ray-client-server-port": free_port(),
            "num-cpus": 4,
            "temp-dir": folder,
            "include-dashboard": "true",
        }
        self._log = (folder / "start.log").open("ab")
        self._process = subprocess.Popen(
            [str(ray), "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{key}={value}" for key, value in options.items()],
            env=environment,
            cwd=ROOT,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while True:
            try:
                self.applications()
                return
            except httpx.HTTPError:
                assert time.monotonic() < deadline, (folder / "start.log").read_text()[-2000:]
                time.sleep(0.2)

    def applications(self) -> dict[str, Any]:
        """Return the status of Serve's applications, from the API that the operator uses."""
        url = f"{self.dashboard}/api/serve/applications/"
        answer = httpx.get(url, headers=self.headers, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["applications"]
        return found

    def put(self, config: dict[str, Any]) -> str | None:
        """Submit a Serve configuration; return the reason if Serve refuses it, else None."""
        url = f"{self.dashboard}/api/serve/applications/"
        answer = httpx.put(url, json=config, headers=self.headers, timeout=60)
        return None if answer.is_success else answer.text

    def close(self) -> None:
        """End all processes of this Ray node, which are in one process group."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
        self._folder.cleanup()
