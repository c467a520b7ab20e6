"""Starts a real API server for custom resources, with a real etcd."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from kubernetes import client

HERE = Path(__file__).resolve().parent
TOKEN = "secret-token"
CRDS = Path(os.environ.get("KUBERAY_CRDS", HERE.parents[2] / "shared" / "kuberay-crds"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_binary() -> Path:
    """Return the path of the server's binary, built once; skip the test if it cannot be built."""
    if os.geteuid() != 0:
        pytest.skip("the API server is built as root")
    if not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        pytest.skip("the API server is built from Debian's packages, this is not Debian")
    if not CRDS.is_dir():
        pytest.skip("KUBERAY_CRDS names no folder with the CRDs of KubeRay's release")
    done = subprocess.run(
        [HERE / "crdserver" / "build.sh"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the API server could not be built: {done.stderr[-300:]}")
    return Path(done.stdout.strip())


class ApiServer:
    """Runs etcd and the API server, each as a process."""

    def __init__(self, folder: Path) -> None:
        self._binary, self._folder = build_binary(), folder
        self._store, self._peers, self._port = free_port(), free_port(), free_port()
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,1\n")
        self.url = f"https://127.0.0.1:{self._port}"
        store = f"http://127.0.0.1:{self._store}"
        peers = f"http://127.0.0.1:{self._peers}"
        self._etcd = self._start_process(
            [
                *(Path(sys.executable).parent / "etcd", "--data-dir", folder / "etcd"),
                *("--listen-client-urls", store, "--advertise-client-urls", store),
                *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
                *("--initial-cluster", f"default={peers}", "--unsafe-no-fsync"),
            ],
            "etcd.log",
        )
        self._server: subprocess.Popen[bytes] | None = None
        self._kinds = "apiextensions.k8s.io/v1/customresourcedefinitions"
        self.start()
        self._install_kinds()
        self._kinds = "ray.io/v1/rayservices"

    def start(self) -> None:
        self._server = self._start_process(
            [
                *(self._binary, "-etcd", f"http://127.0.0.1:{self._store}"),
                *("-port", str(self._port), "-cert-dir", self._folder / "certs"),
                *("-token-auth-file", self._folder / "tokens.csv"),
            ],
            "server.log",
        )
        headers = {"Authorization": f"Bearer {TOKEN}"}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                path = f"{self.url}/apis/{self._kinds}"
                if httpx.get(path, headers=headers, verify=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError((self._folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """Kill the server; etcd keeps its data and runs on."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def close(self) -> None:
        self.kill()
        self._etcd.kill()
        self._etcd.wait()

    def compact(self) -> None:
        """Remove all old versions from etcd, as it does from time to time."""
        control = [str(Path(sys.executable).parent / "etcdctl"), "--endpoints"]
        control.append(f"127.0.0.1:{self._store}")
        environment = {**os.environ, "ETCDCTL_API": "3"}
        out = subprocess.run(
            [*control, "get", "x", "-w", "json"], capture_output=True, check=True, env=environment
        )
        revision = yaml.safe_load(out.stdout)["header"]["revision"]
        subprocess.run([*control, "compact", str(revision)], check=True, env=environment)

    def client(self) -> client.ApiClient:
        settings = client.Configuration(host=self.url)
        settings.verify_ssl = False
        settings.api_key = {"BearerToken": f"Bearer {TOKEN}", "authorization": f"Bearer {TOKEN}"}
        return client.ApiClient(settings)

    def kubeconfig(self, path: Path, *, url: str | None = None, token: str = TOKEN) -> Path:
        cluster = {"server": url or self.url}
        if not url:
            cluster["insecure-skip-tls-verify"] = True
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "audio"}}
            ],
        }
        path.write_text(yaml.safe_dump(written))
        return path

    def _start_process(self, command: list[object], log: str) -> "subprocess.Popen[bytes]":
        with (self._folder / log).open("ab") as out:
            return subprocess.Popen([str(c) for c in command], stdout=out, stderr=out)

    def _install_kinds(self) -> None:
        """Install KubeRay's CRDs, and wait until they are served."""
        definitions = client.ApiextensionsV1Api(self.client())
        for path in sorted(CRDS.glob("ray.io_ray*.yaml")):
            definition = yaml.safe_load(path.read_text())
            definitions.create_custom_resource_definition(definition)
            name = definition["metadata"]["name"]
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                found = definitions.read_custom_resource_definition(name)
                conditions = {c.type: c.status for c in found.status.conditions or []}
                if conditions.get("Established") == "True":
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"{name} is not established")
