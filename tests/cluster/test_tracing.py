"""One request through every deployment, as logs and traces show it."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import ray

from tests.cluster.conftest import Deployed
from tests.spans import Sent
from tests.waiting import until

PATH = "/v1/generations"
BODY = {"prompt": "a secret wish", "duration": 2}
BEHIND_A_CLIP = {"audiocraft_ingress", "audiocraft_music", "audiocraft_codec", "audiocraft_ledger"}
DECODE, CODES = "/v1/codec/decode", {"codes": [[1] * 100] * 4}


def records(request_id: str) -> list[dict[str, Any]]:
    """What replicas have logged of a request."""
    session = ray._private.worker._global_node.get_session_dir_path()
    lines = [
        line
        for path in Path(session, "logs", "serve").glob("replica_audiocraft_*.log")
        for line in path.read_text().splitlines()
    ]
    found = [json.loads(line) for line in lines]
    return [record for record in found if record.get("request_id") == request_id]


def logged(request_id: str) -> list[dict[str, Any]]:
    """The records of a request, once there are some of each deployment behind a clip."""

    def complete() -> list[dict[str, Any]] | None:
        found = records(request_id)
        # A ledger is told of the end when all else is done.
        settled = any("settle" in one["message"] for one in found)
        names = {one["deployment"] for one in found}
        return found if settled and names >= BEHIND_A_CLIP else None

    return until(complete, 180)  # a clip of 30 s on a busy machine


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_one_id_finds_a_request_in_every_log(deployed: Deployed, more: dict[str, Any]):
    mine = str(uuid4())
    answer = deployed.http.post(PATH, json=BODY | more, headers={"x-request-id": mine})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == mine
    found = logged(mine)
    (of_answer,) = [one for one in found if "outcome" in one]
    assert of_answer["deployment"] == "audiocraft_ingress"
    assert of_answer["seconds"] > 0
    wanted = {"method": "POST", "path": PATH, "outcome": "200", "model": "music", "key": "everyone"}
    assert wanted.items() <= of_answer.items()
    assert all(one["replica"] for one in found)
    assert "secret" not in str(found)


def test_work_that_outlives_its_request_keeps_its_name(deployed: Deployed):
    """Serve cancels what a request began when its client leaves; not an answer to be kept."""
    mine, body = str(uuid4()), json.dumps(BODY | {"duration": 30})
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {mine}\r\nidempotency-key: {mine}\r\n\r\n"
    )
    with socket.create_connection(deployed.address) as connection:
        connection.sendall((head + body).encode())
        until(lambda: deployed.load().running == 1)
    found = logged(mine)
    assert [one["outcome"] for one in found if "outcome" in one] == ["cut"]
    assert any(one["message"].startswith("CALL generate OK") for one in found)


def test_an_id_that_the_server_gave_is_in_its_logs(deployed: Deployed):
    answer = deployed.http.post(PATH, json=BODY)
    assert logged(answer.headers["x-request-id"])


def traced(deployed: Deployed, trace: str) -> list[Sent]:
    """The spans of a trace, once they are there; replicas send theirs when they will."""
    wanted = {f"POST {PATH}", "generate_content music", "decode codec", "settle ledger"}

    def complete() -> list[Sent] | None:
        found = [s for s in deployed.collector.spans if s.trace.hex() == trace]
        return found if {s.name for s in found} >= wanted else None

    return until(complete)


@pytest.mark.parametrize("stream", [False, True])
def test_a_trace_follows_a_request_through_the_replicas(deployed: Deployed, stream: bool):
    trace, client = uuid4().hex, uuid4().hex[:16]
    headers = {"traceparent": f"00-{trace}-{client}-01"}
    answer = deployed.http.post(PATH, json=BODY | {"stream": stream}, headers=headers)
    assert answer.status_code == 200
    found = traced(deployed, trace)
    of = {span.name: span for span in found}
    root = of[f"POST {PATH}"]
    assert root.parent.hex() == client
    assert root.attributes["audiocraft.request_id"] == answer.headers["x-request-id"]
    assert root.resource["audiocraft.deployment"] == "ingress"

    generate = of["generate_content music"]
    assert generate.parent == root.number
    assert generate.resource["audiocraft.deployment"] == "music"
    assert generate.resource["service.instance.id"] != root.resource["service.instance.id"]
    assert generate.attributes["gen_ai.request.model"] == "music"
    phases = [s for s in found if s.parent == generate.number]
    assert sorted(p.name for p in phases) == ["condition", "decode", "first_chunk", "queue"]
    assert sum(p.seconds for p in phases) <= generate.seconds * 1.01

    decodes = [s for s in found if s.name == "decode codec"]
    assert len(decodes) >= (2 if stream else 1)
    for decode in decodes:
        assert decode.parent == root.number
        assert decode.resource["audiocraft.deployment"] == "codec"
        assert decode.attributes["audiocraft.batch.items"] == 1
        assert 0 <= decode.attributes["audiocraft.batch.wait_seconds"] < decode.seconds
    assert of["admission"].parent == root.number
    assert of["admit ledger"].parent == of["admission"].number
    assert of["encode wav"].parent == root.number
    assert "secret" not in str(found)


def test_the_items_of_a_batch_stay_in_their_own_traces(deployed: Deployed):
    """One call of a batched method serves many requests; each has its own span of it."""
    asked: dict[str, str] = {}

    def ask(trace: str) -> None:
        client = uuid4().hex[:16]
        headers = {"traceparent": f"00-{trace}-{client}-01"}
        answer = deployed.http.post(DECODE, json=CODES, headers=headers)
        assert answer.status_code == 200, answer.text
        asked[trace] = client

    def spans(name: str) -> dict[str, Sent]:
        found = [s for s in deployed.collector.spans if s.name == name]
        return {s.trace.hex(): s for s in found if s.trace.hex() in asked}

    def batched() -> bool:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, [uuid4().hex for _ in range(6)]))
        until(lambda: set(spans("decode codec")) == set(spans(f"POST {DECODE}")) == set(asked))
        return any(
            s.attributes["audiocraft.batch.items"] > 1 for s in spans("decode codec").values()
        )

    until(batched)
    roots = spans(f"POST {DECODE}")
    for trace, decode in spans("decode codec").items():
        assert roots[trace].parent.hex() == asked[trace]
        assert decode.parent == roots[trace].number
