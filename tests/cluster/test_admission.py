"""The ledger on a real cluster: it may die, and comes back with what ingresses have let in."""

import json
import socket
from contextlib import ExitStack

from ray import serve
from ray.exceptions import RayActorError

from deployments.accounts import Snapshot
from tests.application import APPLICATION
from tests.cluster.conftest import Deployed
from tests.waiting import until

CLIPS = {"prompt": "calm piano", "duration": 30, "seed": 3, "stream": True, "n": 16}
EVENTS = {"accept": "text/event-stream"}
PRICE = 16 * 30.0 * 2
"""In row-seconds, nearly: the delay of the codebooks is fed as well."""


def snapshot() -> Snapshot | None:
    """Return what all ingresses have outstanding; None where the ledger does not answer."""
    ledger = serve.get_deployment_handle("ledger", APPLICATION)
    try:
        found: Snapshot = ledger.snapshot.remote().result(timeout_s=30)
    except RayActorError:
        return None
    return found


def has_requests(number: int) -> bool:
    """Return whether so many requests of the music model are outstanding; 0: none of any model."""
    found = snapshot()
    if found is None:
        return False
    return found.requests.get("music") == number if number else not found.requests


def speed(deployed: Deployed) -> float | None:
    """Return the speed of the music model, which the ledger learns with each admission."""
    assert deployed.generate(duration=0.1).status_code == 200
    told: dict[str, float | None] = deployed.http.get("/v1/stats").json()["backlog"]["music"]
    return told["row_seconds_per_second"]


def test_stats_tell_what_is_going_on(deployed: Deployed):
    until(lambda: has_requests(0))
    with deployed.http.stream("POST", "/v1/generations", json=CLIPS, headers=EVENTS) as response:
        assert response.status_code == 200
        parts = response.iter_bytes()
        next(parts)
        told = deployed.http.get("/v1/stats").json()
        until(lambda: speed(deployed))
    assert told["models"]["music"]["running"] == 16
    assert told["models"]["music"]["slots"] == 32
    # A charge shrinks while its work is done.
    assert 0 < told["backlog"]["music"]["row_seconds"] < 1.1 * PRICE
    assert told["deployments"]["ledger"] == "HEALTHY"
    assert "batches" in told["models"]["codec"]


def test_a_ledger_that_dies_has_its_charges_back(deployed: Deployed):
    """Meanwhile requests are let in under the local cap."""
    until(lambda: has_requests(0))  # those of other tests have ended
    body = json.dumps(CLIPS)
    head = "POST /v1/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\naccept: text/event-stream\r\n\r\n{body}"
    with ExitStack() as connections:
        for _ in range(2):  # as many clips as there are slots, longer than the ledger is away
            connection = connections.enter_context(socket.create_connection(deployed.address))
            connection.sendall(request.encode())
        until(lambda: has_requests(2))
        deployed.replica("ledger").kill()
        assert deployed.generate("audio", duration=1).status_code == 200
        until(lambda: has_requests(2))  # by beats alone: nothing has been let in since
        found = snapshot()
        assert found
        assert 0 < found.row_seconds["music"] < 2.2 * PRICE
    until(lambda: has_requests(0))
