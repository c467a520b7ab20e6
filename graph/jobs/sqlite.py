"""Keeps jobs in one SQLite file, for an ingress that has one replica."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from graph.jobs import store as stores
from graph.jobs.database import open_database
from graph.jobs.store import Kind, NewJob, Place, StoreUnavailable, Taken, Work

FREE = "(leased_until < :now or leased_until > :now + 2 * :lease)"
"""The condition that nobody works on an entry. A lease that ends later than any new lease comes
from a clock that was ahead and has been set back."""
FIELDS = "kind, name, since, owner, target, price, weight"
READY = f"kind = :kind and due <= :now and {FREE}"
LANE = "owner || char(10) || target"
T = TypeVar("T")


class SqliteStore:
    """See `Store`. One thread has the only connection, because SQLite's calls block."""

    def __init__(self, path: Path, replace_damaged: bool = False) -> None:
        self._path, self._replace_damaged = path, replace_damaged
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jobs")

    async def open(self) -> None:
        """Open or create the file. Raises OSError where this fails."""
        loop = asyncio.get_running_loop()
        arguments = self._path, self._replace_damaged
        self._connection = await loop.run_in_executor(self._thread, open_database, *arguments)

    async def close(self) -> None:
        """Close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """See `Store`."""
        return await self._run(lambda: self._add_text(name, text, expires))

    async def add_jobs(self, jobs: Sequence[NewJob]) -> list[str]:
        """See `Store`."""
        return await self._run(lambda: [self._add_job(job) for job in jobs])

    async def get_text(self, name: str) -> str | None:
        """See `Store`."""
        return await self._run(lambda: self._get_text(name))

    async def swap_text(
        self, name: str, old: str, new: str, expires: float, work: Work | None = None
    ) -> bool:
        """See `Store`."""

        def swap() -> bool:
            change = "update texts set text = ?, expires = ? where name = ? and text = ?"
            done = self._connection.execute(change, (new, expires, name, old)).rowcount == 1
            if done and work:
                self._put_work(work)
            return done

        return await self._run(swap)

    async def delete_text(self, name: str) -> None:
        """See `Store`."""
        await self._query("delete from texts where name = :name", name=name)

    async def list_expired(self) -> list[str]:
        """See `Store`."""
        found = await self._query("select name from texts where expires < :now")
        return [name for (name,) in found]

    async def list_texts(self, owner: str, before: tuple[float, str], most: int) -> list[str]:
        """See `Store`."""
        query = (
            "select text from texts where owner = :owner and (since, name) < (:since, :name) "
            "order by since desc, name desc limit :most"
        )
        since, name = before
        found = await self._query(query, owner=owner, since=since, name=name, most=most)
        return [text for (text,) in found]

    async def put_work(self, work: Work) -> None:
        """See `Store`."""
        await self._run(lambda: self._put_work(work))

    async def withdraw_work(self, kind: Kind, name: str) -> None:
        """See `Store`."""

        def withdraw() -> None:
            gone = (
                f"delete from entries where kind = :kind and name = :name and {FREE} "
                "returning owner, price / weight"
            )
            for owner, cost in self._execute(gone, kind=kind, name=name):
                back = "update turns set rank = rank - ? where kind = ? and owner = ?"
                self._connection.execute(back, (cost, kind, owner))

        await self._run(withdraw)

    async def take_work(self, kind: Kind, closed: Collection[str]) -> Taken | None:
        """See `Store`."""
        find = (
            f"select name from entries where {READY} "
            f"and {LANE} not in (select value from json_each(:closed)) "
            "order by rank, since, name limit 1"
        )
        lease = (
            "update entries set holder = :holder, leased_until = :now + :lease, "
            f"attempts = attempts + 1 where kind = :kind and name = :name "
            f"returning {FIELDS}, attempts, rank"
        )
        clock = (
            "insert into clocks values (?, ?) "
            "on conflict do update set rank = max(rank, excluded.rank)"
        )

        def take() -> Taken | None:
            holder = uuid4().hex
            for (name,) in self._execute(find, kind=kind, closed=json.dumps(list(closed))):
                (found,) = self._execute(lease, kind=kind, name=name, holder=holder)
                *fields, attempts, rank = found
                self._connection.execute(clock, (kind, rank))
                return Taken(Work(*fields), attempts, holder)
            return None

        return await self._run(take)

    async def renew_work(self, kind: Kind, leases: Mapping[str, str]) -> set[str]:
        """See `Store`."""
        renew = (
            "update entries set leased_until = :now + :lease "
            "where kind = :kind and name = :name and holder = :holder returning name"
        )

        def renew_all() -> set[str]:
            held = (
                self._execute(renew, kind=kind, name=name, holder=holder)
                for name, holder in leases.items()
            )
            return leases.keys() - {name for rows in held for (name,) in rows}

        return await self._run(renew_all)

    async def end_work(self, taken: Taken, again: float | None) -> None:
        """See `Store`."""
        change = (
            "delete from entries"
            if again is None
            else "update entries set leased_until = 0, holder = null, due = :now + :again"
        )
        mine = "where kind = :kind and name = :name and holder = :holder"
        given = {"kind": taken.work.kind, "name": taken.work.name, "holder": taken.holder}
        await self._query(f"{change} {mine}", again=again, **given)

    async def count_waiting(self, kind: Kind, owner: str | None = None) -> int:
        """See `Store`."""
        query = f"select count(*) from entries where kind = :kind and {FREE}"
        query += "" if owner is None else " and owner = :owner"
        ((found,),) = await self._query(query, kind=kind, owner=owner)
        return int(found)

    async def find_places(self, kind: Kind, names: Sequence[str]) -> dict[str, Place]:
        """See `Store`."""
        by_place = "entries indexed by by_place where kind = :kind and holder is null"
        before = (
            f"(select count(*) from {by_place} and rank < one.rank) "
            f"+ (select count(*) from {by_place} and rank = one.rank "
            "and (since, name) <= (one.since, one.name))"
        )
        of_one = (
            f"select name, {before}, target from entries as one "
            "where kind = :kind and holder is null and name = :name"
        )
        of_all = (
            "select name, position, target from (select name, target, row_number() "
            f"over (order by rank, since, name) as position from {by_place}) "
            "where name in (select value from json_each(:names))"
        )
        total = (
            "select total(price) from entries indexed by by_target "
            "where kind = :kind and holder is null and target = :target"
        )

        def find() -> dict[str, Place]:
            if len(names) == 1:  # counting is faster than to number the whole queue
                rows = self._execute(of_one, kind=kind, name=names[0])
            else:
                rows = self._execute(of_all, kind=kind, names=json.dumps(list(names)))
            ((waiting,),) = self._execute(f"select count(*) from {by_place}", kind=kind)
            prices = {
                target: self._execute(total, kind=kind, target=target)[0][0]
                for target in {target for _, _, target in rows}
            }
            return {name: Place(place, waiting, prices[target]) for name, place, target in rows}

        return await self._run(find)

    def _add_text(self, name: str, text: str, expires: float) -> str:
        add = "insert or ignore into texts (name, text, expires) values (?, ?, ?)"
        self._connection.execute(add, (name, text, expires))
        return self._get_text(name) or text

    def _get_text(self, name: str) -> str | None:
        found = self._execute("select text from texts where name = :name", name=name)
        return found[0][0] if found else None

    def _add_job(self, job: NewJob) -> str:
        work = job.work
        add = "insert or ignore into texts values (?, ?, ?, ?, ?)"
        values = work.name, job.text, job.expires, work.owner, work.since
        if self._connection.execute(add, values).rowcount == 1:
            self._put_work(work)
        return self._get_text(work.name) or job.text

    def _put_work(self, work: Work) -> None:
        rank = (
            "select max(coalesce((select rank from clocks where kind = :kind), 0), "
            "coalesce((select rank from turns where kind = :kind and owner = :owner), 0))"
        )
        ((begin,),) = self._execute(rank, kind=work.kind, owner=work.owner)
        insert = f"insert or ignore into entries ({FIELDS}, rank) values (?, ?, ?, ?, ?, ?, ?, ?)"
        if self._connection.execute(insert, (*astuple(work), begin)).rowcount == 1:
            turn = "insert or replace into turns values (?, ?, ?)"
            end = begin + work.price / work.weight
            self._connection.execute(turn, (work.kind, work.owner, end))

    def _execute(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement with named values, and with `:now` and `:lease`."""
        known = {"now": time.time(), "lease": stores.LEASE_S}
        return self._connection.execute(statement, known | values).fetchall()

    async def _query(self, statement: str, **values: Any) -> Sequence[Any]:
        return await self._run(lambda: self._execute(statement, **values))

    async def _run(self, change: Callable[[], T]) -> T:
        """Run a change as one transaction on the thread of the connection."""

        def run() -> T:
            self._connection.execute("begin immediate")
            try:
                done = change()
                self._connection.execute("commit")
            except BaseException:  # whatever it is, the transaction must end; it goes on
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
            return done

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except sqlite3.Error as error:  # the disk is full, or the file is locked
            message = "the store of jobs cannot be written now; try again"
            raise StoreUnavailable(503, "jobs_unavailable", message) from error
