"""Lists of jobs: whole or not at all, bounded, and counted at once."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from api.routes import jobs as jobs_routes
from api.settings import KeySettings, UserConfig
from graph.jobs.store import NewJob
from tests.api.conftest import Method
from tests.api.jobs.conftest import BODY, Working, made, working_in
from tests.api.test_admission import hashed

AUTO = BODY | {"quality": "auto"}


class CountingLedger:
    """A ledger that notes the names of the methods that are called."""

    def __init__(self, ledger: Any) -> None:
        self._ledger, self.calls = ledger, list[str]()

    def __getattr__(self, name: str) -> Method:
        async def note(*args: Any) -> Any:
            if name != "renew_charges":  # the beats of the ingress, one in each second
                self.calls.append(name)
            return await getattr(self._ledger, name).remote(*args)

        return Method(note)


def count_calls(working: Working) -> list[str]:
    """Return the list to which the names of the ledger's methods are added when it is called."""
    ledger = working.service.ledger
    counting = CountingLedger(ledger.methods)
    ledger.methods = counting
    return counting.calls


@pytest.mark.parametrize("rate", [None, 1000])
async def test_a_list_costs_one_call_of_the_ledger(tmp_path: Path, rate: int | None):
    """Whatever its bodies ask of the ledger, however many they are, and whether there is a rate."""
    async with working_in(tmp_path, at_once=0) as working:
        key = KeySettings(name="a", sha256=hashed("k"), requests_per_minute=rate)
        working.service.limits = UserConfig(keys=(key,))
        calls = count_calls(working)
        await made(working, [AUTO] * 100, authorization="Bearer k")
        assert calls == ["meter_requests"]


async def test_a_spent_key_is_refused_before_its_list_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No tier is chosen and no task is built for it."""
    async with working_in(tmp_path, at_once=0) as working:
        key = KeySettings(name="a", sha256=hashed("k"), requests_per_minute=1)
        working.service.limits = UserConfig(keys=(key,))
        await made(working, AUTO, authorization="Bearer k")
        calls = count_calls(working)
        monkeypatch.setattr(jobs_routes, "build_task", None)
        headers = {"authorization": "Bearer k"}
        answer = await working.http.post("/v1/jobs", json=[AUTO] * 100, headers=headers)
        assert answer.status_code == 429, answer.text
        assert answer.json()["error"]["code"] == "rate_limited"
        assert calls == ["meter_requests"]


async def test_without_the_ledger_a_list_is_accepted(working: Working):
    working.service.ledger.methods.reached = False
    await made(working, [AUTO] * 3)


async def test_too_long_a_list_is_refused_before_it_is_read(
    working: Working, monkeypatch: pytest.MonkeyPatch
):
    """It makes no models, and asks nobody."""
    monkeypatch.setattr(jobs_routes, "SEVERAL_JOBS", None)
    answer = await working.http.post("/v1/jobs", json=[{}] * 60_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_job_that_would_hold_too_many_bytes_is_refused(working: Working):
    working.service.limits = UserConfig(max_held_bytes=1_000_000)
    large = BODY | {"duration": 10, "sample_format": "f32", "sample_rate": 96000}
    answer = await working.http.post("/v1/jobs", json=large)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "answer_too_large"


async def test_a_list_that_cannot_be_stored_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with working_in(tmp_path, at_once=0) as working:
        store, added = working.service.jobs.store, list[str]()
        real = store._add_job

        def add(job: NewJob) -> str:
            if len(added) == 2:
                raise sqlite3.OperationalError("disk I/O error")
            added.append(job.work.name)
            return real(job)

        monkeypatch.setattr(store, "_add_job", add)
        answer = await working.http.post("/v1/jobs", json=[BODY] * 3)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "jobs_unavailable"
        assert await store.count_waiting("job") == 0
        assert [await store.get_text(name) for name in added] == [None, None]


async def test_a_list_is_accepted_whole_or_not_at_all(working: Working):
    jobs = (await made(working, [BODY, BODY | {"seed": 8}]))["jobs"]
    assert [job["seed"] for job in jobs] == [7, 8]
    for job in jobs:
        await working.until(job["id"], "finished")
    before = len(working.music.seen)
    answer = await working.http.post("/v1/jobs", json=[BODY, BODY | {"duration": -1}])
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "1.duration"
    answer = await working.http.post("/v1/jobs", json=[BODY, BODY | {"model": "none"}])
    assert answer.status_code == 404
    assert await working.service.jobs.store.count_waiting("job") == 0
    assert len(working.music.seen) == before
    assert (await working.http.post("/v1/jobs", json=[])).status_code == 422


async def test_a_list_counts_against_the_rate_at_once(working: Working):
    key = KeySettings(name="a", sha256=hashed("k"), requests_per_minute=2)
    working.service.limits = UserConfig(keys=(key,))

    async def post(sent: Any) -> int:
        headers = {"authorization": "Bearer k"}
        return (await working.http.post("/v1/jobs", json=sent, headers=headers)).status_code

    assert [await post([BODY] * 2), await post(BODY)] == [202, 429]
