"""When the server says that it is ready, and that asking wakes no model."""

import asyncio
from types import SimpleNamespace as Namespace
from typing import Any
from unittest.mock import ANY

import pytest
from ray.serve._private.common import DeploymentStatus, ReplicaState
from ray.serve.schema import DeploymentDetails, ReplicaDetails

from api.readiness import DeploymentState, Readiness, count_replicas
from api.settings import UserConfig
from tests.api.conftest import Method, Server
from tests.api.test_http import LONG, SONG, assert_error


async def test_health(server: Server):
    assert (await server.http.get("/healthz")).json() == {"status": "ok"}
    ready = await server.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["deployments"] == {n: s.status for n, s in server.states.items()}


async def test_not_ready_while_a_deployment_is_not_healthy(server: Server):
    server.states["codec"] = DeploymentState("UPDATING", 1)
    response = await server.http.get("/readyz")
    assert_error(response, 503, "not_ready", None, "codec is UPDATING")


@pytest.mark.parametrize("name", ["music", "codec", "ledger"])
async def test_not_ready_as_soon_as_a_replica_is_lost(server: Server, name: str):
    """The controller still reports a healthy deployment, and a call would wait for a replica."""
    waiting = Namespace(info=Method(asyncio.Event().wait))
    handles = server.service.registry.handles
    server.service.registry.handles = {**handles, name: waiting}
    server.states[name] = DeploymentState("HEALTHY", 0, lost=1)
    response = await server.http.get("/readyz")
    assert_error(response, 503, "not_ready", None, f"{name} has lost its only replica")


async def test_not_ready_while_one_of_several_replicas_is_lost(server: Server):
    server.states["codec"] = DeploymentState("HEALTHY", 2, lost=1)
    response = await server.http.get("/readyz")
    assert_error(response, 503, "not_ready", None, "codec has lost 1 of 3 replicas")


def describe_replicas(**states: str) -> DeploymentDetails:
    """Return what Serve's controller tells of a deployment with replicas of these names."""
    replicas = [
        ReplicaDetails(replica_id=name, actor_name=name, state=ReplicaState(state), start_time_s=0)
        for name, state in states.items()
    ]
    return DeploymentDetails.model_construct(status=DeploymentStatus.HEALTHY, replicas=replicas)


def test_a_replica_is_lost_if_its_process_has_ended_while_it_counts_as_running():
    """Whether it is busy does not matter, because it is not called."""
    details = describe_replicas(a="RUNNING", b="RUNNING", new="STARTING", old="STOPPING")
    assert count_replicas(details, {"a", "b", "new"}) == DeploymentState("HEALTHY", 2)
    assert count_replicas(details, {"b", "new"}) == DeploymentState("HEALTHY", 1, lost=1)
    assert count_replicas(details, {"new", "old"}) == DeploymentState("HEALTHY", 0, lost=2)


async def test_a_known_model_is_not_called(server: Server):
    """A busy one would answer late, and a lost one never."""
    for where in ("music", "audio"):
        await server.generate(where, duration=1)
    server.service.registry.handles = dict.fromkeys(server.states, Asleep())
    assert (await server.http.get("/readyz")).status_code == 200


async def test_not_ready_before_a_model_has_described_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.readiness.CHECK_S", 0.05)
    busy = Namespace(info=Method(asyncio.Event().wait))
    server.service.registry.handles = {**server.service.registry.handles, "codec": busy}
    response = await server.http.get("/readyz")
    assert_error(response, 503, "not_ready", None, "has not answered")


async def test_readiness_is_found_out_once_in_a_second(server: Server):
    found = 0

    async def count() -> dict[str, DeploymentState]:
        nonlocal found
        found += 1
        await asyncio.sleep(0.01)
        return {}

    server.service.readiness = Readiness(server.service.registry, count)
    answers = await asyncio.gather(*(server.http.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {503}
    assert found == 1


async def test_not_ready_where_model_and_codec_do_not_fit(server: Server):
    server.codec.cardinality = 1024
    response = await server.http.get("/readyz")
    say = "model 'music' does not fit codec 'codec': cardinality 512 against 1024"
    assert_error(response, 500, "configuration", None, say)


class Asleep:
    """A handle that is not to be touched."""

    def __getattr__(self, name: str):
        raise AssertionError(f"{name} would start a replica, or wait for one")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate/music", {"text": "x" * 11}),
        ("/generate/music", {"text": "a"} | LONG),
        ("/v1/generations", {"prompt": "a"} | LONG),
        ("/v1/generations", {"prompts": ["a"] * 3}),
        ("/v1/audio/speech", {"input": "a"} | LONG),
        ("/v1/sound-generation", {"text": "a", "duration_seconds": 3}),
        ("/v1/workflows/song", SONG),
        ("/v1/workflows/ambience", {"environment": "ocean"} | LONG),
        ("/v1/workflows/podcast", {"theme": "x" * 11, "intro": 1, "outro": 1}),
    ],
)
async def test_a_refused_body_wakes_no_model(server: Server, path: str, body: dict[str, Any]):
    server.service.registry.handles = dict.fromkeys(server.states, Asleep())
    server.service.limits = UserConfig(max_duration_s=2, max_text_chars=10, max_clips=2)
    assert_error(await server.http.post(path, json=body), 422, "invalid_value", ANY, "allowed")


async def test_looking_wakes_no_model_that_sleeps(server: Server):
    names = list(server.states)
    server.states.update(dict.fromkeys(names, DeploymentState("HEALTHY", 0)))
    server.service.registry.handles = dict.fromkeys(names, Asleep())
    assert (await server.http.get("/readyz")).status_code == 200
    told = (await server.http.get("/v1/stats")).json()
    assert told["models"] == {name: {} for name in names}
    assert told["replicas"] == dict.fromkeys(names, 0)
    listing = (await server.http.get("/v1/models")).json()
    assert [one["melody"] for one in listing["data"]] == [None, False, False]
