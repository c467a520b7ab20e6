"""A cluster of three nodes, with our application on it, and work under way while it is harmed."""

import io
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
import ray
import soundfile
from ray import serve
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.serve.schema import ApplicationStatus

from launch import start as launch
from tests.application import APPLICATION, configuration, replicas
from tests.conftest import Checkpoints
from tests.redis_server import RedisServer
from tests.waiting import until

WORKER = {"num_cpus": 2, "num_gpus": 1}
"""Nodes beside the head; each has room for one replica of the language model."""
REPLICAS = 2
KEY = "secret of the tests"
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBmYXVsdHMsIGxvbmcgZW5vdWdo"
BODY = {"prompt": "calm piano", "duration": 16.0}
SEEDS = {"whole": (1, 2), "stream": (3, 4), "job": (5, 6)}
RECOVERIES = pytest.StashKey[list[tuple[str, float, float]]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECOVERIES] = []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table that docs/scale.md has."""
    for what, silent, whole in config.stash[RECOVERIES]:
        terminalreporter.write_line(f"| {what} | {silent:.1f} | {whole:.1f} |")


@dataclass
class Nodes:
    """The cluster, its application, and what may be done to them."""

    cluster: Cluster
    workers: list[Any]
    http: httpx.Client
    redis: RedisServer
    config: dict[str, Any]
    results: Path
    """A file system of its own, of some megabytes, where it could be mounted."""

    @property
    def language_models(self) -> int:
        """How many replicas of the language model there shall be."""
        return int(self.config["applications"][0]["args"]["models"][0]["replicas"])

    def without_ingress(self) -> Any:
        """Return a node that has a replica of the language model, and not the ingress."""
        (ingress,) = replicas("ingress")
        above = {process.pid for process in ingress.parents()}
        return next(one for one in self.workers if raylet_of(one) not in above)

    def lose(self, node: Any) -> None:
        """Kill a node, and all processes on it."""
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def gain(self) -> None:
        """Add a node."""
        self.workers.append(self.cluster.add_node(**WORKER))

    def drain(self, node: Any) -> None:
        """Tell Ray that a node will go, as KubeRay does before it takes one away."""
        deadline_ms = int((time.time() + 600) * 1000)
        accepted, why = GcsClient(address=self.cluster.gcs_address).drain_node(
            node.node_id, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "it goes", deadline_ms
        )
        assert accepted, why

    def answers(self) -> bool:
        """Whether the API answers, and each model behind it."""
        try:
            return self.http.get("/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def whole(self) -> bool:
        """Whether every replica that there shall be is there, and the API answers."""
        if not self.answers():
            return False
        status = serve.status().applications[APPLICATION]
        return status.status == ApplicationStatus.RUNNING and all(
            one.replica_states == {"RUNNING": self.language_models if name == "music" else 1}
            for name, one in status.deployments.items()
        )


def raylet_of(node: Any) -> int:
    """Return the process id of a node's raylet, whose children are the replicas there."""
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Iterator[Nodes]:
    if not shutil.which("redis-server"):
        pytest.skip("needs Debian's package redis-server")
    with ExitStack() as stack:
        redis = RedisServer(tmp_path_factory.mktemp("redis"))
        stack.callback(redis.kill)
        results = tmp_path_factory.mktemp("results")
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)]
        if subprocess.run(mount, capture_output=True).returncode == 0:
            stack.callback(subprocess.run, ["umount", "-l", str(results)], check=True)
        head = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        workers = [cluster.add_node(**WORKER) for _ in range(REPLICAS)]
        ray.init(cluster.address, namespace="serve", log_to_driver=False, logging_level="ERROR")
        stack.callback(ray.shutdown)
        config = with_two_language_models(checkpoints, redis, results)
        launch.deploy(config)
        launch.wait_until_running(APPLICATION)
        url = f"http://127.0.0.1:{config['http_options']['port']}"
        # A connection each: none is used again that the proxy took with it.
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"authorization": f"Bearer {KEY}"}
        http = stack.enter_context(
            httpx.Client(base_url=url, timeout=200, limits=limits, headers=headers)
        )
        yield Nodes(cluster, workers, http, redis, config, results)


def with_two_language_models(
    checkpoints: Checkpoints, redis: RedisServer, results: Path
) -> dict[str, Any]:
    """Return the shipped file's, with two replicas of the music model, jobs in Redis and a key."""
    store = {"kind": "redis", "url": redis.url, "files": str(results / "jobs")}
    digest = sha256(KEY.encode()).hexdigest()
    key = {"name": "studio", "sha256": [digest], "webhook_secrets": [SECRET]}
    config = configuration(checkpoints, store, {}, {"keys": [key]})
    given = config["applications"][0]["args"]
    given["ingress"]["jobs"]["webhooks_to_private_addresses"] = True
    given["models"] = [one for one in given["models"] if one["name"] != "sound"]
    given["models"][0] |= {"num_gpus": 1, "device": "cpu", "replicas": REPLICAS}
    return config


def samples(wav: bytes) -> np.ndarray:
    return soundfile.read(io.BytesIO(wav))[0]


@pytest.fixture(scope="session")
def wanted(nodes: Nodes) -> Mapping[int, np.ndarray]:
    """What each seed gives where nothing is harmed."""
    seeds = [seed for kind in SEEDS.values() for seed in kind]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda seed: ask(nodes, seed), seeds))
    return {seed: samples(one.content) for seed, one in zip(seeds, answers, strict=True)}


def ask(nodes: Nodes, seed: int, **headers: str) -> httpx.Response:
    answer = nodes.http.post("/v1/generations", json=BODY | {"seed": seed}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


@dataclass
class Reading:
    """A stream that is read."""

    data: bytes = b""
    last: float = 0.0
    longest_silence: float = 0.0

    def read(self, nodes: Nodes, seed: int) -> bytes:
        body = BODY | {"seed": seed, "stream": True}
        with nodes.http.stream("POST", "/v1/generations", json=body) as response:
            assert response.status_code == 200
            for part in response.iter_bytes():
                now = time.monotonic()
                self.longest_silence = max(self.longest_silence, now - (self.last or now))
                self.data, self.last = self.data + part, now
        return self.data


@dataclass
class UnderWay:
    """Whole clips, streams and jobs, of a language model whose replicas have some of each."""

    nodes: Nodes
    wanted: Mapping[int, np.ndarray]
    pool: ThreadPoolExecutor
    keys: list[dict[str, str]] = field(default_factory=list)
    wholes: list[Future[httpx.Response]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    streams: list[Future[bytes]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    def begin(self) -> None:
        for number in range(2):
            whole, stream, job = (SEEDS[kind][number] for kind in ("whole", "stream", "job"))
            body = BODY | {"seed": job}
            self.jobs.append(self.nodes.http.post("/v1/jobs", json=body).json()["id"])
            key = {"idempotency-key": str(uuid4())}
            self.keys.append(key)
            self.wholes.append(self.pool.submit(ask, self.nodes, whole, **key))
            self.readings.append(Reading())
            self.streams.append(self.pool.submit(self.readings[-1].read, self.nodes, stream))
        until(lambda: all(reading.data for reading in self.readings))
        until(lambda: all(self.look(job)["progress"] > 0 for job in self.jobs))
        assert not any(one.done() for one in (*self.wholes, *self.streams))

    def look(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.nodes.http.get(f"/v1/jobs/{job}").json()
        return found

    def job_audio(self, job: str) -> bytes:
        """Wait until a job has ended, whatever the API says meanwhile."""

        def ended() -> dict[str, Any] | None:
            try:
                found = self.look(job)
            except (httpx.TransportError, ValueError):
                return None
            return found if found.get("status") in ("finished", "failed") else None

        found = until(ended, 180)
        assert found["status"] == "finished", found
        return self.nodes.http.get(f"/v1/jobs/{job}/audio").content

    def check_jobs(self) -> None:
        self.check("job", [self.job_audio(job) for job in self.jobs])

    def check_all(self) -> None:
        """All go on to their end, and none shows what happened."""
        self.check("stream", [stream.result(180) for stream in self.streams])
        self.check("whole", [whole.result(180).content for whole in self.wholes])
        self.check_jobs()

    def check(self, kind: str, wavs: Sequence[bytes]) -> None:
        for seed, wav in zip(SEEDS[kind], wavs, strict=True):
            made = samples(wav)
            assert len(made) == len(self.wanted[seed])
            assert np.abs(made - self.wanted[seed]).max() <= 1 / 32768, f"{kind}, seed {seed}"

    @property
    def longest_silence(self) -> float:
        return max(reading.longest_silence for reading in self.readings)


@pytest.fixture
def under_way(nodes: Nodes, wanted: Mapping[int, np.ndarray]) -> Iterator[UnderWay]:
    until(nodes.whole, 120)
    with ThreadPoolExecutor() as pool:
        work = UnderWay(nodes, wanted, pool)
        work.begin()
        yield work


@pytest.fixture
def recovered(pytestconfig: pytest.Config, nodes: Nodes) -> Callable[[str, float, float], None]:
    """Wait until the cluster is whole again, and note how long it took."""

    def note(what: str, since: float, silent: float) -> None:
        until(nodes.whole, 120)
        took = time.monotonic() - since
        pytestconfig.stash[RECOVERIES].append((what, silent, took))

    return note
