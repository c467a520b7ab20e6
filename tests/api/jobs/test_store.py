"""Both stores keep the same promises."""

import asyncio
import sys
import time
from collections.abc import Awaitable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from graph.errors import ApiError
from graph.jobs import redis, sqlite
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Handler, Store, Work
from tests.api.jobs.conftest import Connect
from tests.redis_server import RedisServer
from tests.waiting import until_async

FAR = time.time() + 1000


def job(number: int, **more: object) -> Work:
    values = {"since": float(number), "owner": "studio", "model": "music", "row_seconds": 2.5}
    return Work("job", f"job_{number}", **(values | more))


@asynccontextmanager
async def served(store: Store, handle: Handler, most: int = 4):
    serving = asyncio.create_task(store.serve_work(handle, most))
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
    stores = [await connect() for _ in range(4)]
    await stores[0].add_text("one", "old", FAR)
    changes = [
        s.swap_text("one", "old", f"{i}-{j}", FAR) for i, s in enumerate(stores) for j in range(5)
    ]
    changed = await asyncio.gather(*changes)
    assert sum(changed) == 1
    i, j = divmod(changed.index(True), 5)
    assert await stores[0].get_text("one") == f"{i}-{j}"
    assert not await stores[0].swap_text("absent", "old", "new", FAR)


async def test_texts_expire_by_their_last_change(store: Store):
    await store.add_text("old", "text", time.time() - 1)
    await store.add_text("kept", "text", FAR)
    await store.add_text("renewed", "text", time.time() - 1)
    assert await store.swap_text("renewed", "text", "text2", FAR)
    assert await store.list_expired() == ["old"]
    await store.delete_text("old")
    assert await store.list_expired() == []


async def test_work_is_done_once_and_in_order(connect: Connect):
    stores = [await connect() for _ in range(2)]
    done: list[str] = []

    async def handle(work: Work, attempt: int) -> None:
        assert attempt == 1
        done.append(work.name)

    for number in range(20):
        await stores[number % 2].put_work(job(number))
        await stores[number % 2].put_work(job(number))  # is queued already
    assert [work.name for work in await stores[0].list_waiting()] == [f"job_{n}" for n in range(20)]
    assert (await stores[1].list_waiting())[3] == job(3)
    async with served(stores[0], handle, most=1):
        await until_async(lambda: _true(len(done) == 20))
    assert done == [f"job_{n}" for n in range(20)]
    assert await stores[1].list_waiting() == []


async def test_work_is_withdrawn(store: Store):
    await store.put_work(job(1))
    await store.put_work(job(2))
    await store.withdraw_work(job(1))
    assert await store.list_waiting() == [job(2)]


async def test_several_replicas_share_the_work(connect: Connect):
    stores = [await connect() for _ in range(2)]
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

    async with served(stores[0], by(0), most=2), served(stores[1], by(1), most=2):
        for number in range(40):
            await stores[0].put_work(job(number))
        await until_async(lambda: _true(len(done) == 40))
    assert len(set(done)) == 40


@pytest.mark.slow
async def test_work_is_tried_again_when_it_says_so(store: Store):
    tries: list[tuple[int, float]] = []

    async def handle(work: Work, attempt: int) -> float | None:
        tries.append((attempt, time.monotonic()))
        return 0.6 if attempt < 3 else None

    async with served(store, handle):
        await store.put_work(Work("webhook", "job_1.finished", 0.0))
        await until_async(lambda: _true(len(tries) == 3))
    assert [attempt for attempt, _ in tries] == [1, 2, 3]
    assert all(b - a >= 0.6 for (_, a), (_, b) in pairwise(tries))
    assert await store.list_waiting() == []  # webhooks are no jobs


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
    assert [work.name for work in await staying.list_waiting()] == ["job_1"]
    async with served(staying, at_once):
        await asyncio.wait_for(done.wait(), 10)  # less than any lease


DIES = """
import asyncio, os, sys
from pathlib import Path
from graph.errors import ApiError
from graph.jobs import redis, sqlite
redis.LEASE_S = sqlite.LEASE_S = 2
where = sys.argv[1]
store = redis.RedisStore(where, None) if "://" in where else sqlite.SqliteStore(Path(where))
async def handle(work, attempt):
    print("begun", flush=True)
    await asyncio.Event().wait()
async def main():
    await store.open()
    await store.serve_work(handle, 1)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_work_of_a_process_that_is_killed_is_done_by_another(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "LEASE_S", 2)
    monkeypatch.setattr(redis, "LEASE_S", 2)
    if kind == "sqlite":
        where = str(tmp_path / "jobs.sqlite")
        store: Store = SqliteStore(Path(where))
    else:
        where = request.getfixturevalue("redis_server").url
        store = redis.RedisStore(where, None)
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
    monkeypatch.setattr(sqlite, "LEASE_S", 1)
    monkeypatch.setattr(redis, "LEASE_S", 1)
    stores = [await connect() for _ in range(2)]
    begun: list[int] = []
    enough = asyncio.Event()

    async def handle(work: Work, attempt: int) -> None:
        begun.append(attempt)
        await asyncio.wait_for(enough.wait(), 60)

    async with served(stores[0], handle), served(stores[1], handle):
        await stores[0].put_work(job(1))
        await until_async(lambda: _true(begun))
        await asyncio.sleep(3)  # leases that were not renewed would have ended, thrice
        enough.set()
        await until_async(lambda: _nothing(stores[0]))
    assert begun == [1]


@pytest.mark.slow
async def test_redis_may_go_and_come_back(redis_server: RedisServer):
    """What was accepted is there again; who serves says that it cannot."""
    store = redis.RedisStore(redis_server.url, None)
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
    store = redis.RedisStore("redis://127.0.0.1:1", None)
    with pytest.raises(OSError, match="Redis cannot be used"):
        await store.open()


async def _true(value: object) -> object:
    return value


async def _nothing(store: Store) -> bool:
    return not await store.list_waiting()


async def _ignoring(work: Awaitable[str | None]) -> str | None:
    try:
        return await work
    except ApiError:
        return None
