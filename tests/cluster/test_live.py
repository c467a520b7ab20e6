"""Live sessions through Ray Serve's proxy."""

import json
import socket
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.cluster.conftest import Deployed
from tests.waiting import until


def opened(deployed: Deployed, **options: Any) -> ClientConnection:
    host, port = deployed.address
    return connect(f"ws://{host}:{port}/v1/live", **options)


def charged(deployed: Deployed) -> int:
    """Requests outstanding, of the music model."""
    backlog = deployed.http.get("/v1/stats").json()["backlog"]
    return int(backlog.get("music", {"requests": 0})["requests"])


def test_a_session_plays_on_while_its_prompt_changes(deployed: Deployed):
    """And longer than a connection may be silent: the client says nothing after its last word."""
    seconds, prompts, stopped = 0.0, [], False
    limit = deployed.config["http_options"]["keep_alive_timeout_s"]
    with opened(deployed) as live:
        live.send(json.dumps({"prompt": "calm piano", "passage": 2, "seed": 3}))
        started = json.loads(live.recv(timeout=60))
        assert (started["model"], started["seed"]) == ("music", 3)
        assert started["request_id"]
        rate = 2 * started["sample_rate"] * started["channels"]
        for message in live:
            if isinstance(message, bytes):
                seconds += len(message) / rate
                if stopped:  # what was on its way; the server may have closed by now
                    continue
                stopped = seconds > limit + 3
                live.send(json.dumps({"stop": True} if stopped else {"played": seconds}))
            else:
                told = json.loads(message)
                assert told["type"] == "passage", told
                assert told["start"] == pytest.approx(2 * told["number"])
                prompts.append(told["prompt"])
                if told["number"] == 1:
                    live.send(json.dumps({"tension": 0.6, "location": "forest"}))
        assert live.protocol.close_code == 1000
    assert set(prompts) == {"calm piano", "suspense music, forest"}
    assert seconds == pytest.approx(2 * len(prompts), abs=2)
    assert deployed.load().requests == 0


def test_a_client_that_vanishes_leaves_no_work(deployed: Deployed):
    before = deployed.load()
    live = opened(deployed)
    live.send(json.dumps({"prompt": "calm piano", "passage": 10}))
    while not isinstance(live.recv(timeout=60), bytes):
        pass
    assert deployed.load().running == 1
    live.socket.shutdown(socket.SHUT_RDWR)
    stopped = until(lambda: (now := deployed.load()).requests == 0 and now)
    assert stopped.cancelled == before.cancelled + 1
    assert stopped.steps - before.steps < 500, "it ran to its end"
    until(lambda: charged(deployed) == 0)


def test_what_is_refused_says_why(deployed: Deployed):
    for sent, headers, code in (
        ({"prompt": ""}, {}, 4422),
        ({"prompt": "a"}, {"origin": "https://example.com"}, 4403),
    ):
        with opened(deployed, additional_headers=headers) as live:
            with suppress(ConnectionClosed):  # what headers say is refused before
                live.send(json.dumps(sent))
            told = json.loads(live.recv(timeout=60))
            assert told["type"] == "error"
            assert told["request_id"]
            with pytest.raises(ConnectionClosed):
                live.recv(timeout=60)
            assert live.protocol.close_code == code
