"""Both stores keep the same promises: each test runs against each of them."""

import asyncio
import math
import sys
import time
from collections.abc import Awaitable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from graph.errors import ApiError
from graph.jobs import store as stores
from graph.jobs.redis import RedisStore
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import NewJob, Store, Work
from graph.jobs.work_queue import Handler, WorkQueue
from graph.settings import RedisStore as Settings
from tests.api.jobs.conftest import Connect, waiting
from tests.redis_server import RedisServer
from tests.waiting import until_async

FAR = time.time() + 1000


def job(number: int, **more: object) -> Work:
    values = {"since": float(number), "owner": "studio", "target": "music", "price": 2.5}
    return Work("job", f"job_{number}", **(values | more))


@asynccontextmanager
async def served(
    store: Store, handle: Handler, most: int = 4, *, kind="job", of_a_lane: int = 99, pauses=False
):
    queue = WorkQueue(store, kind, handle, most, of_a_lane, pauses)
    serving = asyncio.create_task(queue.serve_work())
    try:
        yield serving
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_a_text_is_written_once(store: Store):
    assert await store.get_text("one") is None
    assert await store.add_text("one", "first", FAR) == "first"
    assert await store.add_text("one", "second", FAR) == "first"
    assert await store.get_text("one") == "first"
    await store.delete_text("one")
    assert await store.get_text("one") is None


async def test_only_one_of_many_changes_a_text(connect: Connect):
    several = [await connect() for _ in range(4)]
    await several[0].add_text("one", "old", FAR)
    changes = [
        s.swap_text("one", "old", f"{i}-{j}", FAR) for i, s in enumerate(several) for j in range(5)
    ]
    changed = await asyncio.gather(*changes)
    assert sum(changed) == 1
    i, j = divmod(changed.index(True), 5)
    assert await several[0].get_text("one") == f"{i}-{j}"
    assert not await several[0].swap_text("absent", "old", "new", FAR)


async def test_texts_expire_by_their_last_change(store: Store):
    await store.add_text("old", "text", time.time() - 1)
    await store.add_text("kept", "text", FAR)
    await store.add_text("renewed", "text", time.time() - 1)
    assert await store.swap_text("renewed", "text", "text2", FAR)
    assert await store.list_expired() == ["old"]
    await store.delete_text("old")
    assert await store.list_expired() == []


async def test_work_is_done_once_and_in_order(connect: Connect):
    several = [await connect() for _ in range(2)]
    done: list[str] = []

    async def handle(work: Work, attempt: int) -> None:
        assert attempt == 1
        done.append(work.name)

    for number in range(20):
        await several[number % 2].put_work(job(number))
        await several[number % 2].put_work(job(number))  # is queued already
    names = [f"job_{n}" for n in range(20)]
    places = await several[1].find_places("job", names)
    assert [places[name].position for name in names] == list(range(1, 21))
    assert (places["job_3"].waiting, places["job_3"].price) == (20, 20 * 2.5)
    assert await several[1].find_places("job", names[3:4]) == {"job_3": places["job_3"]}
    async with served(several[0], handle, most=1):
        await until_async(lambda: _true(len(done) == 20))
    assert done == names
    assert await waiting(several[1]) == 0
    assert await several[1].find_places("job", names) == {}


async def test_work_is_withdrawn(store: Store):
    await store.put_work(job(1))
    await store.put_work(job(2))
    await store.withdraw_work("job", "job_1")
    assert list(await store.find_places("job", ["job_1", "job_2"])) == ["job_2"]


async def take_names(store: Store, most: int = 99) -> list[str]:
    """Take work until there is none; return its names."""
    names: list[str] = []
    while len(names) < most and (taken := await store.take_work("job", [])):
        names.append(taken.work.name)
    return names


async def test_jobs_are_added_whole_and_once(connect: Connect):
    one, other = await connect(), await connect()
    jobs = [NewJob(f"text {n}", FAR, job(n)) for n in range(3)]
    texts = [job.text for job in jobs]
    assert await one.add_jobs(jobs) == texts
    again = [NewJob("another", FAR, one.work) for one in jobs]
    assert await other.add_jobs(again) == texts
    assert await other.get_text("job_1") == "text 1"
    assert await waiting(other) == await other.count_waiting("job", "studio") == 3
    assert await other.count_waiting("job", "nobody") == 0


async def test_texts_of_jobs_are_listed(store: Store):
    names = [f"job_{number:02}" for number in range(12)]
    await store.add_jobs(
        [NewJob(name, FAR, Work("job", name, 1e9 + n // 2, "one")) for n, name in enumerate(names)]
    )
    await store.add_jobs([NewJob("of another", FAR, Work("job", "job_99", 1e9, "other"))])
    newest = names[::-1]
    assert await store.list_texts("one", (math.inf, ""), 5) == newest[:5]
    last = 1e9 + int(newest[4][4:]) // 2, newest[4]
    assert await store.list_texts("one", last, 99) == newest[5:]
    await store.delete_text("job_11")
    assert await store.list_texts("one", (math.inf, ""), 2) == newest[1:3]


async def test_a_change_queues_its_work_or_nothing(store: Store):
    await store.add_text("one", "old", FAR)
    assert not await store.swap_text("one", "other", "new", FAR, job(1))
    assert await waiting(store) == 0
    assert await store.swap_text("one", "old", "new", FAR, job(1))
    assert await waiting(store) == 1


async def test_several_replicas_share_the_work(connect: Connect):
    several = [await connect() for _ in range(2)]
    done: list[str] = []
    begun: set[int] = set()
    both = asyncio.Event()

    def by(replica: int) -> Handler:
        async def handle(work: Work, attempt: int) -> None:
            begun.add(replica)
            if len(begun) == 2:
                both.set()
            await both.wait()
            done.append(work.name)

        return handle

    async with served(several[0], by(0), most=2), served(several[1], by(1), most=2):
        for number in range(40):
            await several[0].put_work(job(number))
        await until_async(lambda: _true(len(done) == 40))
    assert len(set(done)) == 40


@pytest.mark.slow
async def test_work_is_tried_again_when_it_says_so(store: Store):
    tries: list[tuple[int, float]] = []

    async def handle(work: Work, attempt: int) -> float | None:
        tries.append((attempt, time.monotonic()))
        return 0.6 if attempt < 3 else None

    async with served(store, handle, kind="webhook"):
        await store.put_work(Work("webhook", "job_1.finished", 0.0))
        await until_async(lambda: _true(len(tries) == 3))
    assert [attempt for attempt, _ in tries] == [1, 2, 3]
    assert all(b - a >= 0.6 for (_, a), (_, b) in pairwise(tries))


async def test_no_more_than_so_much_at_once(store: Store):
    running, most = 0, 0
    done: list[str] = []

    async def handle(work: Work, attempt: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        done.append(work.name)

    for number in range(12):
        await store.put_work(job(number))
    async with served(store, handle, most=3):
        await until_async(lambda: _true(len(done) == 12))
    assert most == 3


async def test_who_leaves_gives_its_work_back_at_once(connect: Connect):
    leaving, staying = await connect(), await connect()
    begun, cancelled, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def never(work: Work, attempt: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def at_once(work: Work, attempt: int) -> None:
        done.set()

    await leaving.put_work(job(1))
    async with served(leaving, never):
        await begun.wait()
    assert cancelled.is_set()
    assert await waiting(staying) == 1
    async with served(staying, at_once):
        await asyncio.wait_for(done.wait(), 10)  # less than any lease


def store_at(where: str) -> Store:
    """Return a store in Redis or in a file."""
    if "://" in where:
        return RedisStore(Settings(kind="redis", url=where, files="memory://jobs"))
    return SqliteStore(Path(where))


DIES = """
import asyncio, sys
from graph.jobs import store as stores
from graph.jobs.work_queue import WorkQueue
from tests.api.jobs.test_store import store_at
stores.LEASE_S = 2
store = store_at(sys.argv[1])
async def handle(work, attempt):
    print("begun", flush=True)
    await asyncio.Event().wait()
async def main():
    await store.open()
    await WorkQueue(store, "job", handle, 1, 1, False).serve_work()
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_work_of_a_process_that_is_killed_is_done_by_another(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stores, "LEASE_S", 2)
    in_redis = kind == "redis"
    where = (
        request.getfixturevalue("redis_server").url if in_redis else str(tmp_path / "jobs.sqlite")
    )
    store = store_at(where)
    await store.open()
    await store.put_work(job(1))
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES, where, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdout
    assert await other.stdout.readline() == b"begun\n"
    other.kill()
    attempts: list[int] = []

    async def handle(work: Work, attempt: int) -> None:
        attempts.append(attempt)

    async with served(store, handle):
        await until_async(lambda: _true(attempts))
    assert attempts == [2]
    await store.close()


@pytest.mark.slow
async def test_long_work_keeps_its_lease(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "LEASE_S", 1)
    one, other = await connect(), await connect()
    begun: list[int] = []
    enough = asyncio.Event()

    async def handle(work: Work, attempt: int) -> None:
        begun.append(attempt)
        await asyncio.wait_for(enough.wait(), 60)

    async with served(one, handle), served(other, handle):
        await one.put_work(job(1))
        await until_async(lambda: _true(begun))
        await asyncio.sleep(3)  # leases that were not renewed would have ended, thrice
        enough.set()
        await until_async(lambda: _gone(one, "job_1"))
    assert begun == [1]


@pytest.mark.slow
async def test_redis_may_go_and_come_back(redis_server: RedisServer):
    """What was accepted is there again; who serves says that it cannot."""
    store = store_at(redis_server.url)
    await store.open()
    done: list[str] = []

    async def handle(work: Work, attempt: int) -> None:
        done.append(work.name)

    await store.put_work(job(1))
    await store.add_text("job_1", "text", FAR)
    redis_server.kill()
    with pytest.raises(ApiError, match="try again"):
        await store.get_text("job_1")
    redis_server.start()
    assert await until_async(lambda: _ignoring(store.get_text("job_1"))) == "text"
    async with served(store, handle):
        await until_async(lambda: _true(done))
    await store.close()


async def test_no_redis_is_said():
    store = store_at("redis://127.0.0.1:1")
    with pytest.raises(OSError, match="Redis cannot be used"):
        await store.open()


async def _true(value: object) -> object:
    return value


async def _gone(store: Store, name: str) -> bool:
    """Whether work is not queued any more, and nobody works on it."""
    await store.put_work(Work("job", name, 0.0))
    waits = bool(await store.find_places("job", [name]))
    await store.withdraw_work("job", name)
    return waits


async def _ignoring(work: Awaitable[str | None]) -> str | None:
    try:
        return await work
    except ApiError:
        return None
