"""The ingress and the proxy killed: open connections break; jobs and keyed requests do not."""

import time
from functools import partial

import httpx
import pytest

from tests.application import processes
from tests.faults.conftest import BODY, SEEDS, Nodes, UnderWay
from tests.faults.test_replicas import Recovered
from tests.waiting import until

NAMES = {"ingress": "ServeReplica:audiocraft:ingress", "proxy": "ProxyActor"}


@pytest.mark.parametrize("victim", ["ingress", "proxy"])
def test_killed(nodes: Nodes, under_way: UnderWay, recovered: Recovered, victim: str):
    (process,) = processes(NAMES[victim])
    process.kill()
    killed = time.monotonic()
    for request in (*under_way.streams, *under_way.wholes):
        with pytest.raises((httpx.TransportError, AssertionError)):
            request.result(60)

    def retried(number: int) -> httpx.Response | None:
        body = BODY | {"seed": SEEDS["whole"][number]}
        try:
            answer = nodes.http.post("/v1/generations", json=body, headers=under_way.keys[number])
        except httpx.TransportError:
            return None
        return answer if answer.status_code == 200 else None

    until(nodes.answers)
    served = time.monotonic() - killed
    answers = [until(partial(retried, number)) for number in range(2)]
    under_way.check("whole", [answer.content for answer in answers])
    if victim == "proxy":  # what the ingress was making, it made
        assert all(answer.headers["idempotent-replayed"] == "true" for answer in answers)
    under_way.check_jobs()
    recovered(f"the {victim}: kill -9", killed, served)
