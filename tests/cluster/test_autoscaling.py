"""Replicas come and go on a real cluster as `deployments.scaling.policy` decides."""

from collections.abc import Iterator
from dataclasses import asdict

import pytest
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.scaling.policy import Report
from deployments.settings import Autoscaling
from tests.cluster.conftest import Deployed
from tests.waiting import until

NAME = "paced"
FULL, IDLE = Report(1.0, 0.0, 64.0, 20.0), Report(0.0, 0.0, 64.0, 20.0)


@serve.deployment(name=NAME, ray_actor_options={"num_cpus": 0.1})
class Paced:
    """Says of itself what it is told to."""

    def __init__(self) -> None:
        self._report = IDLE

    async def tell(self, report: Report) -> None:
        self._report = report

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return asdict(self._report)


@pytest.fixture
def paced(deployed: Deployed) -> Iterator[DeploymentHandle]:
    scaling = Autoscaling(min_replicas=1, max_replicas=3, patience_s=1).build_options()
    application = Paced.options(autoscaling_config=scaling).bind()
    yield serve.run(application, name=NAME, route_prefix=None)
    serve.delete(NAME)


def replicas() -> int:
    states = serve.status().applications[NAME].deployments[NAME].replica_states
    return states.get("RUNNING", 0)


def test_a_full_replica_gets_company_and_an_idle_one_goes(paced: DeploymentHandle):
    assert replicas() == 1
    paced.tell.remote(FULL).result(timeout_s=30)
    until(lambda: replicas() == 2)
    queued = Report(1.0, 64 * 10 * 0.9, 64.0, 20.0)  # each of these asks for two
    until(lambda: paced.tell.remote(queued).result(timeout_s=30) or replicas() == 3)
    until(lambda: paced.tell.remote(IDLE).result(timeout_s=30) or replicas() == 1)


@pytest.fixture
def sleeper(deployed: Deployed) -> Iterator[DeploymentHandle]:
    scaling = Autoscaling(min_replicas=0, max_replicas=1, patience_s=1, idle_s=1).build_options()
    application = Paced.options(autoscaling_config=scaling).bind()
    yield serve.run(application, name=NAME, route_prefix=None)
    serve.delete(NAME)


def test_the_last_replica_goes_and_a_request_starts_one(sleeper: DeploymentHandle):
    until(lambda: replicas() == 0)
    sleeper.tell.remote(FULL).result(timeout_s=60)
    assert replicas() == 1
    sleeper.tell.remote(IDLE).result(timeout_s=60)
    until(lambda: replicas() == 0)


def test_our_own_replicas_say_what_the_policy_needs(deployed: Deployed):
    for name in ("music", "sound", "codec", "diffusion", "judge", "media", "ingress"):
        handle = serve.get_deployment_handle(name, "audiocraft")
        said = handle.record_autoscaling_stats.remote().result(timeout_s=30)
        report = Report(**said)
        assert 0 <= report.occupied <= 1, name
        assert report.queued == 0, name
        assert report.speed > 0, name
