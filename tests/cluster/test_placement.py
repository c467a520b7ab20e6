"""Fractions of GPUs: who shares a card, and who waits when no card has enough left."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from tests.cluster.conftest import FRACTIONS, Deployed
from tests.waiting import until


@serve.deployment
class Placed:
    """Says which card it is on."""

    async def cards(self) -> list[int]:
        return ray.get_gpu_ids()


@pytest.fixture
def applications() -> Iterator[ExitStack]:
    with ExitStack() as deleted:
        yield deleted


def place(applications: ExitStack, name: str, fraction: float) -> DeploymentHandle:
    options = {"num_cpus": 0.05, "num_gpus": fraction}
    bound = Placed.options(ray_actor_options=options).bind()
    handle = serve._run(bound, name=name, route_prefix=None, _blocking=False)
    applications.callback(serve.delete, name)
    return handle


def running(name: str) -> bool:
    return serve.status().applications[name].status == ApplicationStatus.RUNNING


def test_fractions_share_a_card_and_the_last_waits_for_one(
    deployed: Deployed, applications: ExitStack
):
    """All models are on one card of two, with 0.05 of it left."""
    assert sum(FRACTIONS.values()) == pytest.approx(0.95)
    small = place(applications, "small", 0.05)
    until(lambda: running("small"))
    large = place(applications, "large", 0.6)
    until(lambda: running("large"))
    cards = [one.cards.remote().result(timeout_s=30) for one in (small, large)]
    assert cards[0] != cards[1], "it fills the card of the models"
    place(applications, "waits", 0.5)
    until(lambda: "waits" in serve.status().applications)

    def said() -> bool:
        states = serve.status().applications["waits"].deployments.values()
        return any("GPU" in state.message for state in states)

    until(said)
    assert not running("waits")
    assert deployed.generate(duration=1).status_code == 200, "nobody else is disturbed"
    serve.delete("large")
    until(lambda: running("waits"))
