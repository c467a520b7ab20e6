"""A cluster for the tests of `python -m k8s`: an API server, and overlays of their own."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from k8s.__main__ import app
from k8s.serve_config import OVERLAYS, with_hash
from k8s.yaml_text import dump
from tests.k8s.api_server import ApiServer

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api"))
    yield server
    server.close()


@pytest.fixture
def run(api_server: ApiServer, tmp_path: Path) -> Run:
    """Run the tool against the server, as if from a shell."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig")

    def run(*arguments: str, kubeconfig: Path = kubeconfig) -> Result:
        return CliRunner().invoke(app, ["--kubeconfig", str(kubeconfig), *arguments])

    return run


class Overlay:
    """A folder of the base's RayService alone: the server has none of the core kinds."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self.folder, self.name = folder, name
        folder.mkdir()
        shutil.copy(OVERLAYS.parent / "base" / "rayservice.yaml", folder)
        self.patches: list[dict[str, Any]] = []
        self.serve(config)

    def serve(self, config: dict[str, Any]) -> None:
        self.config = with_hash(config)
        self.write()

    def write(self) -> None:
        patches = [{"op": "replace", "path": "/metadata/name", "value": self.name}]
        set_config = {"op": "add", "path": "/spec/serveConfigV2", "value": dump(self.config)}
        (self.folder / "kustomization.yaml").write_text(
            dump(
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
