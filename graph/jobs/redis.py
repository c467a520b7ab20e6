"""Keeps the jobs of clusters in Redis 7 or later. The queue is streaq, on the streams of Redis.

streaq is typed, uses asyncio, and renews leases while work runs. Of the other libraries, arq gets
no new features, taskiq does not renew the lease of long work, and saq repeats jobs by a timeout.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from anyio import CancelScope
from coredis import PureToken, Redis
from coredis.exceptions import RedisError
from streaq import StreaqRetry, Worker
from streaq.task import Task

from graph.errors import ApiError
from graph.jobs.store import Handler, Work

LEASE_S = 20
PREFIX = "audiocraft:"
EXPIRIES, WAITING = PREFIX + "expiries", PREFIX + "waiting"
TASK = "work"
ADD = """
if redis.call('set', KEYS[1], ARGV[1], 'nx') then redis.call('zadd', KEYS[2], ARGV[2], ARGV[3]) end
return redis.call('get', KEYS[1])
"""
SWAP = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2])
redis.call('zadd', KEYS[2], ARGV[3], ARGV[4])
return 1
"""


class _Worker(Worker[None]):
    async def signal_handler(self, scope: CancelScope) -> None:
        """Leave signals to Serve: streaq ignores `handle_signals` and needs the main thread."""


class RedisStore:
    """See `Store`."""

    def __init__(self, url: str, password: str | None) -> None:
        self._url, self._password = url, password
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises OSError where Redis cannot be reached or is too old."""
        opened = asyncio.get_running_loop().create_future()

        async def keep_open() -> None:
            # One task opens and closes: coredis' connections belong to the task that opened them.
            self._queue = self._build_worker(1)
            try:
                async with self._queue:
                    opened.set_result(None)
                    await self._closing.wait()
            except (RedisError, OSError, ExceptionGroup) as error:
                if opened.done():
                    raise
                opened.set_exception(OSError(f"Redis cannot be used: {_find_first_error(error)}"))

        self._keeper = asyncio.create_task(keep_open())
        await opened

    async def close(self) -> None:
        """Disconnect."""
        self._closing.set()
        await self._keeper

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """See `Store`."""
        keys = [PREFIX + name, EXPIRIES]
        with _map_errors():
            return str(await self._redis.eval(ADD, keys, [text, expires, name]))

    async def get_text(self, name: str) -> str | None:
        """See `Store`."""
        with _map_errors():
            return await self._redis.get(PREFIX + name)

    async def swap_text(self, name: str, old: str, new: str, expires: float) -> bool:
        """See `Store`."""
        keys = [PREFIX + name, EXPIRIES]
        with _map_errors():
            return bool(await self._redis.eval(SWAP, keys, [old, new, expires, name]))

    async def delete_text(self, name: str) -> None:
        """See `Store`."""
        with _map_errors():
            await self._redis.zrem(EXPIRIES, [name])
            await self._redis.delete([PREFIX + name])

    async def list_expired(self) -> list[str]:
        """See `Store`."""
        with _map_errors():
            found = await self._redis.zrange(EXPIRIES, 0, time.time(), sortby=PureToken.BYSCORE)
        return list(found)

    async def put_work(self, work: Work) -> None:
        """See `Store`."""
        text = json.dumps(asdict(work))
        task: Task[Any, Any] = self._queue.enqueue_unsafe(TASK, text)
        task.id = f"{work.kind}:{work.name}"  # work with a queued id is not queued again
        with _map_errors():
            if work.kind == "job":
                await self._redis.zadd(WAITING, {text: work.since})
            await task

    async def withdraw_work(self, work: Work) -> None:
        """See `Store`. The entry of streaq stays, and finds no work to do."""
        with _map_errors():
            await self._redis.zrem(WAITING, [json.dumps(asdict(work))])

    async def list_waiting(self) -> list[Work]:
        """See `Store`."""
        with _map_errors():
            found = await self._redis.zrange(WAITING, 0, -1)
        return [Work(**json.loads(one)) for one in found]

    async def serve_work(self, handle: Handler, most: int) -> None:
        """See `Store`."""
        worker, leaving = self._build_worker(most), asyncio.Event()

        async def do(text: str) -> None:
            await self._redis.zrem(WAITING, [text])
            work = Work(**json.loads(text))
            again = await _run_until_leaving(leaving, handle(work, registered.context.tries))
            if again is None:
                await self._redis.zrem(WAITING, [text])  # it may have been queued again
            else:
                if work.kind == "job":
                    await self._redis.zadd(WAITING, {text: work.since})
                raise StreaqRetry(delay=timedelta(seconds=again))

        registered = worker.task(name=TASK, max_tries=None, timeout=None, ttl=0, silent=True)(do)
        serving = asyncio.create_task(worker.run_async())
        try:
            await asyncio.wait({serving})
            await serving
        finally:
            leaving.set()  # streaq does not cancel running work
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    def _build_worker(self, most: int) -> _Worker:
        return _Worker(
            self._url,
            redis_kwargs={"password": self._password} if self._password else {},
            concurrency=most,
            prefetch=1,
            queue_name="audiocraft",
            serializer=json.dumps,
            deserializer=json.loads,
            idle_timeout=LEASE_S,
        )

    @property
    def _redis(self) -> Redis[str]:
        redis = self._queue.redis
        assert isinstance(redis, Redis)
        return redis


@contextmanager
def _map_errors() -> Iterator[None]:
    """Raise ApiError 503 where Redis does not answer."""
    try:
        yield
    except (RedisError, OSError) as error:
        message = "the store of jobs cannot be reached now; try again"
        raise ApiError(503, "jobs_unavailable", message) from error


async def _run_until_leaving(leaving: asyncio.Event, work: Any) -> float | None:
    """Await work. Once `leaving` is set, cancel the work and return 0, to do it again at once."""
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(leaving.wait())
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            again: float | None = task.result()
            return again
        return 0.0
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


def _find_first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, or the error itself."""
    return (
        _find_first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
    )
