"""Replicas and nodes that are lost while clips, streams and jobs are under way: all go on."""

import signal
import time
from collections.abc import Callable

import psutil
import pytest
from ray.util import list_named_actors

from api.readiness import KEPT_S
from tests.application import APPLICATION, processes, replicas
from tests.faults.conftest import Nodes, UnderWay, raylet_of
from tests.faults.silence import silent
from tests.waiting import until

Recovered = Callable[[str, float, float], None]


def list_actors(deployment: str) -> set[str]:
    """Return the names of a deployment's replicas that Ray takes for alive."""
    prefix = f"SERVE_REPLICA::{APPLICATION}#{deployment}#"
    return {name for name in list_named_actors() if name.startswith(prefix)}


def wait_until_not_ready(nodes: Nodes) -> None:
    """Ray knows of a loss: `/readyz` is ready no longer than its last answers are kept."""
    known = asked = time.monotonic()
    while nodes.answers():
        assert asked < known + 2 * KEPT_S
        asked = time.monotonic()


@pytest.mark.parametrize(
    ("deployment", "what"),
    [("music", "every replica of the language model"), ("codec", "the codec's replica")],
)
def test_killed(
    nodes: Nodes, under_way: UnderWay, recovered: Recovered, deployment: str, what: str
):
    victims, doomed = replicas(deployment), list_actors(deployment)
    assert victims
    assert len(doomed) == len(victims)
    for replica in victims:
        replica.kill()
    killed = time.monotonic()
    until(lambda: not doomed & list_actors(deployment))
    wait_until_not_ready(nodes)
    under_way.check_all()
    recovered(f"{what}: kill -9", killed, under_way.longest_silence)


def test_a_replica_hangs(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """Its process is stopped within a step. Serve asks three times, then ends it."""
    replica = replicas("music")[0]
    replica.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    under_way.check_all()
    until(lambda: not replica.is_running(), 60)
    recovered("a replica of the language model hangs", stopped, under_way.longest_silence)


def test_a_node_is_lost(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    nodes.lose(nodes.without_ingress())
    lost = time.monotonic()
    nodes.gain()
    under_way.check_all()
    recovered("a node with a replica is lost, another comes", lost, under_way.longest_silence)


def test_a_node_falls_silent(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """As where a machine loses its power: no connection to it is closed."""
    node = nodes.without_ingress()
    raylet = psutil.Process(raylet_of(node))
    with silent([raylet, *raylet.children(recursive=True)]):
        nodes.lose(node)
        lost = time.monotonic()
        nodes.gain()
        under_way.check_all()
        recovered("a node falls silent, another comes", lost, under_way.longest_silence)


def test_the_controller_is_killed(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    (controller,) = processes("ServeController")
    controller.kill()
    killed = time.monotonic()
    under_way.check_all()
    until(lambda: processes("ServeController"))
    recovered("Serve's controller: kill -9", killed, under_way.longest_silence)
