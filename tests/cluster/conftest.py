"""One Ray cluster for the session, with two GPUs that are not there, and our application."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve

from engine.params import Load
from launch import start as launch
from tests import checkpoints as write
from tests.application import APPLICATION, configuration, processes, replicas
from tests.conftest import Checkpoints
from tests.spans import Collector, collecting

FRACTIONS = {
    "music": 0.35, "sound": 0.25, "melody": 0.05, "codec": 0.1, "diffusion": 0.1, "judge": 0.1,
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)


@dataclass
class Deployed:
    """The running application."""

    config: dict[str, Any]
    http: httpx.Client
    collector: Collector
    """Gets the spans of every replica."""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.config["http_options"]["port"]

    def generate(self, where: str = "music", **body: Any) -> httpx.Response:
        return self.http.post(f"/generate/{where}", json={"text": "calm piano", **body})

    def load(self, model: str = "music") -> Load:
        handle = serve.get_deployment_handle(model, APPLICATION)
        return handle.load.remote().result(timeout_s=30)

    def replica(self, deployment: str) -> psutil.Process:
        """Return the one process that is a replica of `deployment`."""
        (found,) = replicas(deployment)
        return found

    def process(self, name: str) -> psutil.Process:
        """Return the one process whose name begins so."""
        (found,) = processes(name)
        return found

    def redeploy(self, config: dict[str, Any]) -> None:
        launch.deploy(config)


def add_small_models(models: list[dict[str, Any]], folder: Path, text_encoder: str) -> None:
    """Add kinds of models that the shipped file does not have yet, from untrained files."""
    write.write_language_model(folder, text_encoder, write.melody_config())
    write.write_diffusion(folder / "mbd_musicgen_32khz.th")
    write.write_discriminators(folder)
    shared = {"checkpoint": str(folder), "num_cpus": 0.25}
    models.append({"name": "diffusion", "kind": "mbd", "codec": "codec", **shared})
    melody = {"text_encoder": text_encoder, "stem_separation": False, "engine": {"max_slots": 4}}
    models.append({"name": "melody", "kind": "musicgen", "codec": "codec", **shared, **melody})
    models.append({"name": "judge", "kind": "discriminators", **shared})


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="session")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, checkpoints: Checkpoints
) -> Iterator[Deployed]:
    store = {"kind": "folder", "folder": str(tmp_path_factory.mktemp("jobs"))}
    # Above what clients' pools keep connections for, 5 s.
    config = configuration(checkpoints, store, {"keep_alive_timeout_s": 6}, {"max_body_s": 3})
    models = config["applications"][0]["args"]["models"]
    folder = tmp_path_factory.mktemp("models")
    add_small_models(models, folder, checkpoints.text_encoder)
    for model in models:
        model |= {"num_gpus": FRACTIONS[model["name"]], "device": "cpu"}
    with pytest.MonkeyPatch.context() as environment:  # Ray's processes take it along
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        # A storm of bad clients is to reach the ingress.
        environment.setenv("AUDIOCRAFT_MOST_OPEN_REQUESTS", "1000")
        ray.init(
            address="local",
            namespace="serve",
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        launch.deploy(config)
        launch.wait_until_running(APPLICATION)
        host, port = "127.0.0.1", config["http_options"]["port"]
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=120) as http:
            yield Deployed(config, http, collector)
    finally:
        ray.shutdown()
