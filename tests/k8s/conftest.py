"""Fixtures for the tests of `python -m k8s`: an API server, and small overlays."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from k8s.__main__ import app
from k8s.serve_config import OVERLAYS, add_hash
from k8s.yaml_text import dump_yaml
from tests.k8s.api_server import ApiServer

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api"))
    yield server
    server.close()


@pytest.fixture
def run(api_server: ApiServer, tmp_path: Path) -> Run:
    """Return a function that runs `python -m k8s` against the API server."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig")

    def run(*arguments: str, kubeconfig: Path = kubeconfig) -> Result:
        return CliRunner().invoke(app, ["--kubeconfig", str(kubeconfig), *arguments])

    return run


class Overlay:
    """An overlay with only the base's RayService, because the server has no core kinds."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self.folder, self.name = folder, name
        folder.mkdir()
        shutil.copy(OVERLAYS.parent / "base" / "rayservice.yaml", folder)
        self.patches: list[dict[str, Any]] = []
        self.set_config(config)

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = add_hash(config)
        self.write()

    def write(self) -> None:
        patches = [{"op": "replace", "path": "/metadata/name", "value": self.name}]
        set_config = {"op": "add", "path": "/spec/serveConfigV2", "value": dump_yaml(self.config)}
        (self.folder / "kustomization.yaml").write_text(
            dump_yaml(
                {
                    "resources": ["rayservice.yaml"],
                    "patches": [
                        {
                            "target": {"kind": "RayService"},
                            "patch": json.dumps([*self.patches, set_config, *patches]),
                        }
                    ],
                }
            )
        )

    def change(self, path: str, value: Any, op: str = "add") -> None:
        self.patches.append({"op": op, "path": path, "value": value})
        self.write()

    def __str__(self) -> str:
        return str(self.folder)
