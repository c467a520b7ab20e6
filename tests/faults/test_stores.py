"""What jobs are kept in: Redis that goes and comes back, a disk that is full."""

import time
from pathlib import Path

import pytest

from tests.faults.conftest import Nodes, UnderWay
from tests.faults.test_replicas import Recovered
from tests.waiting import until

FILL = 64 * 2**20
"""Bytes, more than the file system has."""


def test_redis_goes_and_comes_back(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """Meanwhile clips and streams are made as ever, and new jobs refused."""
    nodes.redis.kill()
    gone = time.monotonic()

    def refused() -> bool:
        answer = nodes.http.post("/v1/jobs", json={"prompt": "rain", "duration": 1})
        return answer.status_code == 503 and answer.json()["error"]["code"] == "jobs_unavailable"

    until(refused)
    under_way.check("stream", [stream.result(180) for stream in under_way.streams])
    nodes.redis.start()
    under_way.check_jobs()
    recovered("Redis: kill -9, and started again", gone, under_way.longest_silence)


def test_the_disk_is_full(nodes: Nodes, under_way: UnderWay, recovered: Recovered):
    """Jobs are tried again, and finish once there is room; others notice nothing."""
    if not nodes.results.is_mount():
        pytest.skip("needs the right to mount a small file system")
    filling = nodes.results / "filling"
    fill(filling)
    full = time.monotonic()
    under_way.check("stream", [stream.result(180) for stream in under_way.streams])

    def tried_again() -> bool:
        return any(under_way.look(job)["status"] == "queued" for job in under_way.jobs)

    until(tried_again)
    filling.unlink()
    under_way.check_jobs()
    recovered("the disk of results is full, then has room", full, under_way.longest_silence)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with pytest.raises(OSError, match="No space"), path.open("wb") as file:
        file.write(bytes(FILL))
