"""Replicas and nodes that are lost while clips, streams and jobs are under way: all go on."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.application import processes, replicas
from tests.faults.conftest import Nodes, UnderWay
from tests.waiting import until

Recovered = Callable[[str, float, float], None]


@pytest.mark.parametrize(
    ("deployment", "what"),
    [("music", "every replica of the language model"), ("codec", "the codec's replica")],
)
def test_killed(
    nodes: Nodes, under_way: UnderWay, recovered: Recovered, deployment: str, what: str
):
    victims = replicas(deployment)
    assert victims
    for replica in victims:
        replica.kill()
    killed = time.monotonic()
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


def test_the_controller_is_killed(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    (controller,) = processes("ServeController")
    controller.kill()
    killed = time.monotonic()
    under_way.check_all()
    until(lambda: processes("ServeController"))
    recovered("Serve's controller: kill -9", killed, under_way.longest_silence)
