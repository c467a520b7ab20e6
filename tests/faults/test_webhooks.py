"""Webhooks while receivers are dead and the ingress is killed: the living one gets them all."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.application import processes
from tests.faults.conftest import SECRET, Nodes
from tests.waiting import until

JOBS = 4


@pytest.fixture
def dead() -> Iterator[list[str]]:
    """Addresses of receivers that take connections and never answer."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        yield [f"http://127.0.0.1:{one.getsockname()[1]}/" for one in sockets]


@pytest.fixture
def alive() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a receiver, and the events that it has got and checked."""
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            Webhook(SECRET).verify(body, dict(self.headers))
            got.append(json.loads(body) | {"webhook-id": self.headers["webhook-id"]})
            self.send_response(204)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    serving.join()
    server.server_close()


def test_the_ingress_is_killed_while_receivers_are_dead(
    nodes: Nodes, dead: list[str], alive: tuple[str, list[dict[str, Any]]]
):
    """No job is lost, each finishes once, and its end is told."""
    until(nodes.whole, 120)
    url, got = alive
    body = {"prompt": "calm piano", "duration": 4.0}
    bodies = [body | {"webhook": one} for one in (*dead * 3, *[url] * JOBS)]
    answer = nodes.http.post("/v1/jobs", json=bodies)
    assert answer.status_code == 202, answer.text
    jobs = [job["id"] for job in answer.json()["jobs"]]
    until(lambda: any(event["type"] == "job.started" for event in got), 120)
    (ingress,) = processes("ServeReplica:audiocraft:ingress")
    ingress.kill()

    def finished() -> set[str]:
        return {event["data"]["id"] for event in got if event["type"] == "job.finished"}

    until(lambda: finished() == set(jobs[-JOBS:]), 180)
    events = {event["webhook-id"] for event in got}
    assert len([one for one in events if one.endswith(".finished")]) == JOBS

    def statuses() -> set[str] | None:
        try:
            page = nodes.http.get("/v1/jobs", params={"limit": 100}).json()["jobs"]
        except (httpx.TransportError, ValueError, KeyError):
            return None
        found = {job["status"] for job in page if job["id"] in jobs}
        return found if found == {"finished"} else None

    until(statuses, 120)
