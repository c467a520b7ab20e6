"""Leases in both stores: work is done once, whoever stalls, leaves or is killed."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from graph.jobs import store as stores
from graph.jobs.store import Taken, Work
from tests.api.jobs.conftest import Connect, waiting
from tests.api.jobs.test_store import _gone, _true, job, served, store_at
from tests.waiting import until_async


async def test_an_old_lease_changes_nothing(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "LEASE_S", 0.2)
    one, other = await connect(), await connect()
    await one.put_work(job(1))
    old = await one.take_work("job", [])
    assert old

    async def take() -> Taken | None:
        return await other.take_work("job", [])

    new = await until_async(take)
    assert (old.attempt, new.attempt) == (1, 2)
    assert await one.renew_work("job", {"job_1": old.holder}) == {"job_1"}
    await one.end_work(old, None)
    assert await other.renew_work("job", {"job_1": new.holder}) == set()
    await other.end_work(new, None)
    await one.put_work(job(1))
    assert await waiting(one) == 1


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_stalled_loop_takes_no_work_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """Its loop stands still for longer than a lease: it goes on with what it has."""
    monkeypatch.setattr(stores, "LEASE_S", 0.5)
    in_redis = kind == "redis"
    store = store_at(
        request.getfixturevalue("redis_server").url if in_redis else str(tmp_path / "jobs.sqlite")
    )
    await store.open()
    begun: list[int] = []
    enough = asyncio.Event()

    async def handle(work: Work, attempt: int) -> None:
        begun.append(attempt)
        await enough.wait()

    async with served(store, handle):
        await store.put_work(job(1))
        await until_async(lambda: _true(begun))
        time.sleep(1.5)  # noqa: ASYNC251 - the loop shall stand still
        await asyncio.sleep(1)
        assert begun == [1]
        enough.set()
        await until_async(lambda: _gone(store, "job_1"))
    await store.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_work_that_another_has_taken_is_stopped(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """A loop stands still, and another process takes the work: one of both finishes it."""
    monkeypatch.setattr(stores, "LEASE_S", 0.5)
    where = (
        request.getfixturevalue("redis_server").url
        if kind == "redis"
        else str(tmp_path / "jobs.sqlite")
    )
    store = store_at(where)
    await store.open()
    finished: list[str] = []
    begun, stalled = asyncio.Event(), threading.Event()

    async def handle(work: Work, attempt: int) -> None:
        begun.set()
        await asyncio.sleep(3)
        finished.append("the first")

    async def do_elsewhere() -> None:
        other = store_at(where)
        await other.open()

        async def do(work: Work, attempt: int) -> None:
            finished.append("the second")
            stalled.set()
            await asyncio.Event().wait()  # it has the lease until the loop goes on

        async with served(other, do):
            await asyncio.to_thread(resumed.wait)
        await other.close()

    resumed = threading.Event()
    async with served(store, handle):
        await store.put_work(job(1))
        await begun.wait()
        elsewhere = threading.Thread(target=lambda: asyncio.run(do_elsewhere()))
        elsewhere.start()
        assert stalled.wait(20)  # the loop stands still
        await asyncio.sleep(4)
        assert finished == ["the second"]
        resumed.set()
        await asyncio.to_thread(elsewhere.join)
    await store.close()
