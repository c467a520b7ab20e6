"""The clock of a machine may be set while jobs wait and run."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from graph import idempotency as once
from graph.cache import AnswerParts
from graph.jobs import store as stores
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Work
from graph.jobs.work_queue import WorkQueue
from graph.settings import RedisStore
from tests.api.jobs.conftest import Working, made, working_in
from tests.redis_server import RedisServer

DAY = 86400.0
SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


async def finishes_though_it_jumps(working: Working, set_clock: SetClock, jump: float) -> None:
    working.music.gate = asyncio.Event()
    job = (await made(working))["id"]
    await working.until(job, "running")
    set_clock(jump)
    await working.service.jobs.sweep_expired()
    working.music.gate.set()
    await working.until(job, "finished")
    assert (await working.http.get(f"/v1/jobs/{job}/audio")).status_code == 200


@pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY])
async def test_a_job_that_runs_finishes(tmp_path: Path, set_clock: SetClock, jump: float):
    async with working_in(tmp_path) as working:
        await finishes_though_it_jumps(working, set_clock, jump)


@pytest.mark.parametrize("jump", [10 * DAY, -10 * DAY])
async def test_over_redis_too(redis_server: RedisServer, set_clock: SetClock, jump: float):
    settings = RedisStore(kind="redis", url=redis_server.url, files="memory://clock")
    async with working_in(settings) as working:
        await finishes_though_it_jumps(working, set_clock, jump)


async def test_a_job_that_waits_is_not_forgotten(tmp_path: Path, set_clock: SetClock):
    async with working_in(tmp_path, at_once=0) as idle:
        job = (await made(idle))["id"]
        set_clock(10 * DAY)
        await idle.service.jobs.sweep_expired()
        assert (await idle.look(job))["status"] == "queued"
    async with working_in(tmp_path) as working:
        await working.until(job, "finished")


async def test_what_was_never_queued_is_queued(tmp_path: Path, set_clock: SetClock):
    """Who accepted it died before it was."""
    async with working_in(tmp_path, at_once=0) as working:
        job = (await made(working))["id"]
        jobs = working.service.jobs
        work = (await jobs.load_job(job)).work
        await jobs.store.withdraw_work("job", work.name)
        set_clock(10 * DAY)
        await jobs.sweep_expired()
        assert list(await jobs.store.find_places("job", [job])) == [job]


async def test_a_lease_ends_though_the_clock_is_set_back(tmp_path: Path, set_clock: SetClock):
    """That of a process that is gone: it would last a day longer."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    await store.put_work(Work("job", "job_1", 1.0))
    begun, done = asyncio.Event(), asyncio.Event()

    async def hold(_work: Work, _attempt: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def do(_work: Work, attempt: int) -> None:
        assert attempt == 2
        done.set()

    holding = asyncio.create_task(WorkQueue(store, "job", hold, 1, 1, False).serve_work())
    await begun.wait()
    set_clock(-DAY)
    assert await store.count_waiting("job") == 1
    serving = asyncio.create_task(WorkQueue(store, "job", do, 1, 1, False).serve_work())
    await asyncio.wait_for(done.wait(), stores.LEASE_S)
    for task in (holding, serving):
        task.cancel()
    await asyncio.gather(holding, serving, return_exceptions=True)
    await store.close()


async def test_a_claim_ends_though_the_clock_is_set_back(working: Working, set_clock: SetClock):
    until = time.time() + once.LEASE_S
    claim = once.Claim(fingerprint="x", holder="dead", leased_until=until)
    await working.service.jobs.store.add_text("once_x", claim.model_dump_json(), 1e12)
    set_clock(-DAY)

    async def make() -> Callable[[], AnswerParts]:
        return lambda: AnswerParts((b"audio",), "audio/wav", {})

    idempotency = working.service.executor.idempotency
    getting = idempotency.get_answer("once_x", "x", make, ExitStack())
    answer, replayed = await asyncio.wait_for(getting, once.LEASE_S)
    assert not replayed
    assert await working.service.jobs.files.read_file("once_x", answer.file) == b"audio"
