"""What is changed on purpose while clips, streams and jobs are under way: all go on."""

import copy
import time

from launch import start as launch
from tests.application import replicas
from tests.faults.conftest import Nodes, UnderWay
from tests.faults.test_replicas import Recovered
from tests.waiting import until


def test_a_node_is_drained(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """Its replica finishes what it has; another takes its place elsewhere first."""
    leaving = nodes.without_ingress()
    before = {process.pid for process in replicas("music")}
    drained = time.monotonic()
    nodes.drain(leaving)
    nodes.gain()
    under_way.check_all()
    until(lambda: len(before - {process.pid for process in replicas("music")}) == 1)
    nodes.lose(leaving)
    recovered("a node is drained, another comes", drained, under_way.longest_silence)


def test_the_application_is_updated(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """Every replica of the language model but one goes, the ingress too."""
    before = {p.pid for name in ("music", "ingress") for p in replicas(name)}
    config = copy.deepcopy(nodes.config)
    model = config["applications"][0]["args"]["models"][0]
    model["replicas"] -= 1
    model["engine"] = {"max_slots": 16}
    nodes.gain()  # room for the new one, before the old ones go
    nodes.config = config
    updated = time.monotonic()
    launch.deploy(config)
    under_way.check_all()
    recovered("every deployment is updated, one replica fewer", updated, under_way.longest_silence)
    after = {p.pid for name in ("music", "ingress") for p in replicas(name)}
    assert not before & after
