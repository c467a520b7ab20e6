"""Tests that a soak notices what is lost, what leaks and what should not be answered."""

import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from benchmarks.soak import jobs
from benchmarks.soak.jobs import JobBook, JobRecord
from benchmarks.soak.processes import SECRET, Measured, find_leaks, find_own_ends
from benchmarks.soak.receivers import Receivers, open_receivers
from benchmarks.soak.traffic import Traffic

BEFORE = Measured(pid=1, age_s=10, resident_mb=500.0, unshared_mb=300.0, files=40)
RUNNING = {"status": "running", "error": None}
FINISHED = {"status": "finished", "error": None}


@pytest.mark.parametrize(
    ("after", "leaks"),
    [
        ({"codec": BEFORE}, 0),
        ({"codec": BEFORE | {"pid": 2, "resident_mb": 530.0, "files": 45}}, 0),
        ({"codec": BEFORE | {"resident_mb": 600.0}}, 1),
        ({"codec": BEFORE | {"files": 80}}, 1),
        ({"music": BEFORE}, 1),
    ],
)
def test_growth_beyond_what_is_allowed_is_a_leak(after: dict[str, Measured], leaks: int):
    assert len(find_leaks({"codec": BEFORE}, after)) == leaks


def test_a_process_that_nobody_killed_has_ended_by_itself():
    samples = [{"codec": BEFORE, "music": BEFORE}, {"codec": BEFORE | {"pid": 2}}]
    assert find_own_ends(samples, ["codec"]) == []
    assert find_own_ends(samples, ["music"]) == ["codec: 1 times"]


class Server:
    """Answers requests as a test says."""

    def __init__(self) -> None:
        self.states: dict[str, list[dict[str, Any]]] = {}
        """What each job is at each look; the last one stays."""
        self.audio = b"audio"
        self.listed: Iterable[str] = ()
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v1/jobs/")
        if not path:
            page = {"jobs": [{"id": name} for name in self.listed], "next_cursor": None}
            return web.json_response(page)
        if path.endswith("/audio"):
            return web.Response(body=self.audio)
        if states := self.states.get(path):
            return web.json_response(states.pop(0) if len(states) > 1 else states[0])
        return web.json_response({}, status=404 if "job" in path else self.status)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Traffic]]:
    server, application = Server(), web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(address) as http:
        yield server, Traffic(http, Random(0))
    await runner.cleanup()


def build_book(traffic: Traffic, *names: str) -> JobBook:
    records = [JobRecord(name, "song", "wait", "http://alive/", 0.0) for name in names]
    return JobBook(traffic, Receivers("http://alive/", ()), records)


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ([RUNNING, FINISHED], ""),
        ([RUNNING, {"status": "failed", "error": {"code": "a", "message": "b"}}], ""),
        ([RUNNING, {"status": "failed", "error": None}], "without a reason"),
        ([RUNNING, {"status": "cancelled", "error": None}], "not by us"),
        ([RUNNING], "running after 0 s"),
        ([], "404"),
    ],
)
async def test_a_job_that_does_not_end_well_is_lost(
    server: tuple[Server, Traffic],
    monkeypatch: pytest.MonkeyPatch,
    states: list[dict[str, Any]],
    problem: str,
):
    monkeypatch.setattr(jobs, "LOOK_S", 0)
    if states == [RUNNING]:
        monkeypatch.setattr(jobs, "END_S", 0)
    answers, traffic = server
    answers.states["job_1"] = [*states]
    book = build_book(traffic, "job_1")
    (record,) = book.records
    await book.follow_job(record, 0)
    assert problem in record.problem
    assert bool(problem) == bool(record.problem)


async def test_a_job_that_changes_or_loses_its_answer_is_lost(server: tuple[Server, Traffic]):
    answers, traffic = server
    answers.states = {name: [FINISHED] for name in ("job_1", "job_2")}
    book = build_book(traffic, "job_1", "job_2")
    for record in book.records:
        await book.check_again(record)
        assert not record.problem
    answers.audio, answers.states["job_2"] = b"", [RUNNING]
    for record in book.records:
        await book.check_again(record)
    assert [bool(record.problem) for record in book.records] == [True, True]


async def test_jobs_that_are_missing_or_doubled_in_the_list(server: tuple[Server, Traffic]):
    answers, traffic = server
    book = build_book(traffic, "job_1", "job_2")
    answers.listed = ["job_1", "job_2"]
    assert not await book.find_wrong_ids()
    answers.listed = ["job_1", "job_1", "job_3"]
    assert len(await book.find_wrong_ids()) == 3


async def test_an_error_is_unexpected_unless_a_process_was_killed(server: tuple[Server, Traffic]):
    answers, traffic = server
    for status, killed in ((200, False), (429, False), (503, False), (503, True)):
        answers.status = status
        traffic.killed_at = [time.monotonic()] if killed else []
        async with traffic.note_outcome("clip", [200]) as noted:
            noted.status, noted.body = await traffic.send("GET", "/v1/stats")
    assert [outcome for _, outcome in traffic.outcomes] == [
        "200", "429", "unexpected", "disturbed (503)",
    ]  # fmt: skip
    assert len(traffic.unexpected) == 1


async def test_an_event_counts_once_it_came_with_a_valid_signature():
    async with open_receivers() as receivers, aiohttp.ClientSession() as http:
        book = JobBook(Traffic(http, Random(0)), receivers)
        book.records.append(JobRecord("job_1", "song", "wait", receivers.alive, 0.0, "finished"))
        now, name = datetime.now(UTC), "job_1.finished"
        headers = {"webhook-id": name, "webhook-timestamp": str(int(now.timestamp()))}
        for secret in ("whsec_" + "AAAA" * 8, SECRET):
            signature = Webhook(secret).sign(name, now, "{}")
            sent = headers | {"webhook-signature": signature}
            assert book.find_missing_events() == [name]
            async with http.post(receivers.alive, data="{}", headers=sent) as response:
                await response.read()
        assert receivers.forged == 1
        assert not book.find_missing_events()
