"""Keeps jobs in one SQLite file, for the ingress replicas of one machine."""

import asyncio
import contextvars
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from graph.errors import ApiError
from graph.jobs.store import Handler, Work

LEASE_S = 15.0
POLL_S = 0.2
"""Seconds between two searches for work that another replica has queued."""
BUSY_S = 10.0
SCHEMA = """
create table if not exists texts (name text primary key, text text not null, expires real not null);
create table if not exists work (
    kind text, name text, since real, owner text, model text, row_seconds real,
    due real not null, leased_until real not null default 0, holder text,
    attempts int not null default 0,
    primary key (kind, name));
create index if not exists by_age on work (since);
create index if not exists by_expiry on texts (expires);
"""
FREE = "(leased_until < :now or leased_until > :now + 2 * :lease)"
"""The condition that nobody works on an entry. A lease that ends later than any new lease comes
from a clock that was ahead and has been set back."""
FIELDS = "kind, name, since, owner, model, row_seconds"


class SqliteStore:
    """See `Store`. One thread has the only connection, because SQLite's calls block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._came = asyncio.Event()
        self._holder = uuid4().hex

    async def open(self) -> None:
        """Create the file. Raises OSError where this fails."""

        def connect() -> sqlite3.Connection:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Without Python's own transactions, each statement is a transaction.
            found = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            found.execute("pragma journal_mode = wal")
            found.executescript(SCHEMA)
            return found

        loop = asyncio.get_running_loop()
        self._connection = await loop.run_in_executor(self._thread, connect)

    async def close(self) -> None:
        """Close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """See `Store`."""
        await self._run_sql("insert or ignore into texts values (?, ?, ?)", name, text, expires)
        return await self.get_text(name) or text

    async def get_text(self, name: str) -> str | None:
        """See `Store`."""
        found = await self._run_sql("select text from texts where name = ?", name)
        return found[0][0] if found else None

    async def swap_text(self, name: str, old: str, new: str, expires: float) -> bool:
        """See `Store`."""
        change = "update texts set text = ?, expires = ? where name = ? and text = ? returning 1"
        return bool(await self._run_sql(change, new, expires, name, old))

    async def delete_text(self, name: str) -> None:
        """See `Store`."""
        await self._run_sql("delete from texts where name = ?", name)

    async def list_expired(self) -> list[str]:
        """See `Store`."""
        found = await self._run_sql("select name from texts where expires < ?", time.time())
        return [name for (name,) in found]

    async def put_work(self, work: Work) -> None:
        """See `Store`."""
        values = work.kind, work.name, work.since, work.owner, work.model, work.row_seconds
        insert = f"insert or ignore into work ({FIELDS}, due) values (?, ?, ?, ?, ?, ?, 0)"
        await self._run_sql(insert, *values)
        self._came.set()

    async def withdraw_work(self, work: Work) -> None:
        """See `Store`."""
        gone = f"delete from work where kind = :kind and name = :name and {FREE}"
        await self._run_by_name(gone, kind=work.kind, name=work.name)

    async def list_waiting(self) -> list[Work]:
        """See `Store`."""
        query = f"select {FIELDS} from work where kind = 'job' and {FREE} order by since"
        return [Work(*row) for row in await self._run_by_name(query)]

    async def serve_work(self, handle: Handler, most: int) -> None:
        """See `Store`."""
        running: set[asyncio.Task[None]] = set()
        renewed = time.monotonic()
        try:
            while True:
                self._came.clear()
                while len(running) < most and (taken := await self._take_work()):
                    # Work gets an empty context: it does not belong to the task that serves.
                    context = contextvars.Context()
                    running.add(asyncio.create_task(self._do_work(handle, *taken), context=context))
                if time.monotonic() - renewed > LEASE_S / 3:
                    renewed = time.monotonic()
                    await self._renew_leases()
                came = asyncio.ensure_future(self._came.wait())
                done, _ = await asyncio.wait(
                    {came, *running}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
                came.cancel()
                running -= done
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _do_work(self, handle: Handler, work: Work, attempt: int) -> None:
        again: float | None = 0.0  # stays where the work is cancelled
        try:
            again = await handle(work, attempt)
        finally:
            await asyncio.shield(self._put_back(work, again))

    async def _put_back(self, work: Work, again: float | None) -> None:
        mine = work.kind, work.name, self._holder
        where = "where kind = ? and name = ? and holder = ?"
        if again is None:
            await self._run_sql(f"delete from work {where}", *mine)
        else:
            back = f"update work set leased_until = 0, holder = null, due = ? {where}"
            await self._run_sql(back, time.time() + again, *mine)

    async def _take_work(self) -> tuple[Work, int] | None:
        take = (
            "update work set holder = :holder, leased_until = :now + :lease, "
            "attempts = attempts + 1 where rowid = (select rowid from work "
            f"where due <= :now and {FREE} order by since limit 1) "
            f"returning {FIELDS}, attempts"
        )
        found = await self._run_by_name(take, holder=self._holder)
        return (Work(*found[0][:-1]), found[0][-1]) if found else None

    async def _renew_leases(self) -> None:
        renew = "update work set leased_until = ? where holder = ?"
        await self._run_sql(renew, time.time() + LEASE_S, self._holder)

    async def _run_by_name(self, statement: str, **values: str) -> Sequence[Any]:
        """Run a statement with named values, and with `:now` and `:lease`."""
        return await self._execute(statement, {"now": time.time(), "lease": LEASE_S, **values})

    async def _run_sql(self, statement: str, *values: Any) -> Sequence[Any]:
        return await self._execute(statement, values)

    async def _execute(self, statement: str, values: Any) -> Sequence[Any]:
        def fetch_rows() -> list[Any]:
            return self._connection.execute(statement, values).fetchall()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, fetch_rows)
        except sqlite3.OperationalError as error:  # the disk is full, or the file is locked
            message = "the store of jobs cannot be written now; try again"
            raise ApiError(503, "jobs_unavailable", message) from error
