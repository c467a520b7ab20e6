"""Opens the SQLite file of jobs: its tables, its rights, and what happens where it is damaged."""

import logging
import os
import sqlite3
import time
from pathlib import Path

BUSY_S = 10.0
"""Seconds to wait for another process that writes."""
VERSION = 1
SCHEMA = """
create table if not exists texts (name text primary key, text text not null, expires real not null,
    owner text, since real);
create index if not exists by_expiry on texts (expires);
create index if not exists by_owner on texts (owner, since, name);
create table if not exists entries (
    kind text, name text, since real, owner text, target text, price real, weight real,
    rank real not null, due real not null default 0, leased_until real not null default 0,
    holder text, attempts int not null default 0,
    primary key (kind, name));
create index if not exists by_rank on entries (kind, rank, since, name, leased_until);
create index if not exists by_place on entries (kind, rank, since, name) where holder is null;
create index if not exists by_target on entries (kind, target, price) where holder is null;
create index if not exists of_owner on entries (kind, owner, leased_until);
create table if not exists turns (kind text, owner text, rank real, primary key (kind, owner));
create table if not exists clocks (kind text primary key, rank real);
"""
FROM_VERSION_0 = """
alter table texts add column owner text;
alter table texts add column since real;
update texts set owner = json_extract(text, '$.owner'), since = json_extract(text, '$.created')
    where name like 'job!_%' escape '!';
"""
MOVE_WORK = """
insert or ignore into entries (kind, name, since, owner, target, price, weight, rank)
    select kind, name, since, owner, model, row_seconds, 1, 0 from work;
drop table work;
"""
logger = logging.getLogger("ray.serve")


def open_database(path: Path, replace_damaged: bool) -> sqlite3.Connection:
    """Open the file, or create it. Only its owner may read it and the folder.

    A damaged file is renamed and a new one is begun where `replace_damaged` is set. Raises OSError
    where the file is damaged otherwise, or cannot be opened.
    """
    try:
        return _open_intact(path)
    except sqlite3.OperationalError as error:
        raise OSError(f"the store of jobs {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        if not replace_damaged:
            raise OSError(
                f"the store of jobs {path} is damaged ({error}): put a copy of it back, or set "
                "ingress.jobs.store.replace_damaged to keep it under another name and begin a new "
                "one, without the jobs that it had"
            ) from error
        kept = _rename_database(path)
        logger.error("the store of jobs was damaged (%s): it is kept as %s", error, kept)
        return _open_intact(path)


def _open_intact(path: Path) -> sqlite3.Connection:
    """Open the file. Raises sqlite3.DatabaseError where it is damaged."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid == os.getuid():
        path.parent.chmod(0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    # Without Python's own transactions, each statement outside of `begin` is a transaction.
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        for (problem,) in connection.execute("pragma quick_check(1)").fetchall():
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
        connection.execute("pragma journal_mode = wal")
        connection.execute("begin immediate")
        _create_tables(connection)
        connection.execute("commit")
    except BaseException:  # whatever it is, nobody else would close the connection; it goes on
        connection.close()
        raise
    return connection


def _create_tables(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    tables = {name for (name,) in connection.execute("select name from sqlite_master")}
    scripts = [SCHEMA]
    if version < VERSION and "texts" in tables:
        scripts = [FROM_VERSION_0, SCHEMA]
        if "work" in tables:
            scripts.append(MOVE_WORK)
    for statement in "".join(scripts).split(";"):  # `executescript` would commit
        connection.execute(statement)
    connection.execute(f"pragma user_version = {VERSION}")


def _rename_database(path: Path) -> Path:
    """Rename the file and those that belong to it; return its new path."""
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for ending in ("", "-wal", "-shm"):
        if (file := Path(f"{path}{ending}")).exists():
            file.rename(f"{kept}{ending}")
    return kept
