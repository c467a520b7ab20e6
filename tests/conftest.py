"""Fixtures shared by all tests."""

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from launch.start import SERVE_ENVIRONMENT
from tests.parity import Parity
from tests.redis_server import RedisServer
from tests.spans import Recorded

# Ray reads these once, when it is imported; the replicas inherit them.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    **SERVE_ENVIRONMENT,
    "RAY_SERVE_EVENT_LOOP_MONITORING_INTERVAL_S": "0.5",
    "RAY_metrics_report_interval_ms": "500",
    "OMP_NUM_THREADS": "1",  # small models: more threads only wait for each other
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
}


# A busy machine is no fault of the code, so no example of Hypothesis has a deadline.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")

PARITY = pytest.StashKey[Parity]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", type=Path, help="a document whose table of differences to write")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PARITY] = Parity()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--parity")
    if path and exitstatus == pytest.ExitCode.OK:
        session.config.stash[PARITY].write(path)


@pytest.fixture(scope="session")
def parity(pytestconfig: pytest.Config) -> Parity:
    """Compare with AudioCraft, and remember the largest difference."""
    return pytestconfig.stash[PARITY]


@dataclass(frozen=True)
class Checkpoints:
    """Folders of freshly written small models."""

    text_encoder: str
    codec: Path
    music: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    import torch

    from tests import checkpoints as write

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    text_encoder = write.write_text_encoder(folder / "t5")
    write.write_codec(folder / "codec")
    write.write_language_model(folder / "music", text_encoder)
    return Checkpoints(text_encoder, folder / "codec", folder / "music")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if not shutil.which("redis-server"):
        pytest.skip("needs Debian's package redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What is traced by this process from here on."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from deployments import tracing

    exporter, made = InMemorySpanExporter(), TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "get_provider", cache(lambda: made))
    return Recorded(exporter)
