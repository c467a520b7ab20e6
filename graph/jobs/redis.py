"""Keeps the jobs of clusters in Redis 7 or later: `redis.lua` has its operations.

No library for queues is used: streaq, arq, saq and taskiq hand out work in the order of its
arrival, and owners would not take turns.
"""

import asyncio
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from coredis.exceptions import RedisError

from deployments.redis_client import open_redis
from deployments.settings import RedisServer
from graph.jobs import store as stores
from graph.jobs.store import Kind, NewJob, Place, StoreUnavailable, Taken, Work

SCRIPT = Path(__file__).with_suffix(".lua").read_text()


class RedisStore:
    """See `Store`. Each operation is one script, which Redis runs as a whole."""

    def __init__(self, server: RedisServer) -> None:
        """Create a store. Raises ValueError where the password's variable is not set."""
        self._url, self._password = server.url, server.password
        self._prefix = f"{server.key_prefix}:jobs"
        self._closing = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Connect. Raises OSError where Redis cannot be reached or is too old."""
        opened = asyncio.get_running_loop().create_future()

        async def keep_open() -> None:
            # One task opens and closes: coredis' connections belong to the task that opened them.
            try:
                async with open_redis(self._url, self._password) as redis:
                    self._script = redis.register_script(SCRIPT)
                    opened.set_result(None)
                    await self._closing.wait()
            except (RedisError, OSError, ExceptionGroup) as error:
                if opened.done():
                    raise
                opened.set_exception(OSError(f"Redis cannot be used: {_find_first_error(error)}"))

        self._keeper = asyncio.create_task(keep_open())
        await opened

    async def close(self) -> None:
        """Disconnect, once all calls have ended."""
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._closing.set()
        await self._keeper

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """See `Store`."""
        return str(await self._run("add_text", name=name, text=text, expires=expires))

    async def add_jobs(self, jobs: Sequence[NewJob]) -> list[str]:
        """See `Store`."""
        written = [
            {"text": job.text, "expires": job.expires, "work": _describe_work(job.work)}
            for job in jobs
        ]
        return list(await self._run("add_jobs", jobs=written))

    async def get_text(self, name: str) -> str | None:
        """See `Store`."""
        found: str | None = await self._run("get_text", name=name)
        return found

    async def swap_text(
        self, name: str, old: str, new: str, expires: float, work: Work | None = None
    ) -> bool:
        """See `Store`."""
        more = {"work": _describe_work(work)} if work else {}
        given = {"name": name, "old": old, "new": new, "expires": expires}
        return bool(await self._run("swap_text", **given, **more))

    async def delete_text(self, name: str) -> None:
        """See `Store`."""
        await self._run("delete_text", name=name)

    async def list_expired(self) -> list[str]:
        """See `Store`."""
        return list(await self._run("list_expired", until=time.time()))

    async def list_texts(self, owner: str, before: tuple[float, str], most: int) -> list[str]:
        """See `Store`."""
        since, name = before
        return list(await self._run("list_texts", owner=owner, since=since, name=name, most=most))

    async def put_work(self, work: Work) -> None:
        """See `Store`."""
        await self._run("put_work", work=_describe_work(work))

    async def withdraw_work(self, kind: Kind, name: str) -> None:
        """See `Store`."""
        await self._run("withdraw_work", kind=kind, name=name)

    async def take_work(self, kind: Kind, closed: Collection[str]) -> Taken | None:
        """See `Store`."""
        holder, lease = uuid4().hex, stores.LEASE_S
        found = await self._run(
            "take_work", kind=kind, closed=list(closed), holder=holder, lease=lease
        )
        return Taken(Work(**json.loads(found[0])), int(found[1]), holder) if found else None

    async def renew_work(self, kind: Kind, leases: Mapping[str, str]) -> set[str]:
        """See `Store`."""
        given = {"kind": kind, "leases": dict(leases), "lease": stores.LEASE_S}
        return set(await self._run("renew_work", **given))

    async def end_work(self, taken: Taken, again: float | None) -> None:
        """See `Store`."""
        more = {} if again is None else {"again": again}
        work = taken.work
        await self._run("end_work", kind=work.kind, name=work.name, holder=taken.holder, **more)

    async def count_waiting(self, kind: Kind, owner: str | None = None) -> int:
        """See `Store`."""
        more = {} if owner is None else {"owner": owner}
        return int(await self._run("count_waiting", kind=kind, **more))

    async def find_places(self, kind: Kind, names: Sequence[str]) -> dict[str, Place]:
        """See `Store`."""
        found = await self._run("find_places", kind=kind, names=list(names))
        return {
            name: Place(int(position), int(waiting), float(price))
            for name, position, waiting, price in found
        }

    async def _run(self, operation: str, **given: Any) -> Any:
        async def call() -> Any:
            return await self._script([self._prefix], [operation, json.dumps(given)])

        # A caller that is cancelled leaves at once: coredis may turn its end into another error.
        calling = asyncio.create_task(call())
        self._calls.add(calling)
        calling.add_done_callback(self._calls.discard)
        with _map_errors():
            return await asyncio.shield(calling)


def _describe_work(work: Work) -> dict[str, Any]:
    member = f"{work.since:017.6f}{work.name}"
    cost = work.price / work.weight
    return asdict(work) | {"member": member, "cost": cost, "work": json.dumps(asdict(work))}


@contextmanager
def _map_errors() -> Iterator[None]:
    """Raise StoreUnavailable where Redis does not answer."""
    try:
        yield
    except (RedisError, OSError) as error:
        message = "the store of jobs cannot be reached now; try again"
        raise StoreUnavailable(503, "jobs_unavailable", message) from error


def _find_first_error(error: BaseException) -> BaseException:
    """Return the first error of a group, or the error itself."""
    return (
        _find_first_error(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
    )
