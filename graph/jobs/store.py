"""The store that jobs need: texts that change as a whole, a queue that loses no work, and files."""

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from engine.errors import EngineError
from graph.errors import ApiError

PART_BYTES = 2**20
"""The bytes that are read of a file at once."""
LEASE_S = 20.0
"""Seconds after which work is taken again, unless the process that has it renews its lease."""
TRY_AGAIN_AFTER_S = (0.2, 1.0)
"""The pauses between the attempts to read or write a file."""
Kind = Literal["job", "webhook"]
T = TypeVar("T")
logger = logging.getLogger("ray.serve")


class StoreUnavailable(ApiError):
    """A store cannot be used now; what needs it is tried again."""


@dataclass(frozen=True)
class Work:
    """An entry of the queue, which is done even if a process that works on it dies."""

    kind: Kind
    name: str
    since: float
    """The time of its arrival in Unix seconds."""
    owner: str = ""
    """The key whose turn it takes."""
    target: str = ""
    """The model of a job, or the receiver of a webhook."""
    price: float = 1.0
    """The row-seconds of a job."""
    weight: float = 1.0
    """The owner's weight: an owner of twice the weight gets twice the price at its turns."""

    @property
    def lane(self) -> str:
        """The name of what is paused together: the work of one owner for one target."""
        return f"{self.owner}\n{self.target}"


@dataclass(frozen=True)
class Taken:
    """Work that one process has leased."""

    work: Work
    attempt: int
    """The number of times that the work was taken, from 1."""
    holder: str
    """A name that no other lease has."""


@dataclass(frozen=True)
class Place:
    """The place of waiting work in its queue."""

    position: int
    """The place from 1 in the order in which work is taken."""
    waiting: int
    """The length of the queue."""
    price: float
    """The price of all waiting work for the same target."""


@dataclass(frozen=True)
class NewJob:
    """A job to add: its text, and its entry in the queue."""

    text: str
    expires: float
    work: Work


class Store(Protocol):
    """A store that all ingress replicas share; each method is one change, made whole or not at all.

    Owners take turns: of two owners with waiting work, the one comes first that has had less, by
    price and weight; the work of one owner comes in the order of its arrival. (This is start-time
    fair queueing: https://doi.org/10.1109/90.649569.)

    Work may be done twice where a process is stopped for longer than its lease, so `swap_text`
    decides which result counts. All methods raise StoreUnavailable where the store cannot be used.
    """

    async def open(self) -> None:
        """Connect. Raises OSError where the store cannot be reached."""

    async def close(self) -> None:
        """Disconnect."""

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """Write a text unless its name is stored already; return the text that is stored then."""

    async def add_jobs(self, jobs: Sequence[NewJob]) -> list[str]:
        """Add and queue the jobs whose names are not stored yet; return the texts of all."""

    async def get_text(self, name: str) -> str | None:
        """Return a text, or None where its name is not stored."""

    async def swap_text(
        self, name: str, old: str, new: str, expires: float, work: Work | None = None
    ) -> bool:
        """Replace a text if it equals `old`, and queue `work` then; return whether it did."""

    async def delete_text(self, name: str) -> None:
        """Delete a text."""

    async def list_expired(self) -> list[str]:
        """Return the names of expired texts, which stay until they are deleted."""

    async def list_texts(self, owner: str, before: tuple[float, str], most: int) -> list[str]:
        """Return texts of an owner's jobs, the newest first, that are older than `before`.

        `before` has the time of a job's arrival and its name.
        """

    async def put_work(self, work: Work) -> None:
        """Queue work, unless it is queued already."""

    async def withdraw_work(self, kind: Kind, name: str) -> None:
        """Remove work from the queue if nobody has taken it."""

    async def take_work(self, kind: Kind, closed: Collection[str]) -> Taken | None:
        """Lease the work whose turn it is, except work of the closed lanes."""

    async def renew_work(self, kind: Kind, leases: Mapping[str, str]) -> set[str]:
        """Renew leases, each a name and its holder; return the names whose lease is another's."""

    async def end_work(self, taken: Taken, again: float | None) -> None:
        """End a lease, if it still is its holder's: remove the work, or queue it in `again` s."""

    async def count_waiting(self, kind: Kind, owner: str | None = None) -> int:
        """Count the work that nobody has taken, of one owner or of all."""

    async def find_places(self, kind: Kind, names: Sequence[str]) -> dict[str, Place]:
        """Return the places of the work that waits now."""


class Files:
    """The files of jobs, by the name of the job and of the file; only their owner may read them.

    Every method tries again for a short time, and raises StoreUnavailable where it still fails.
    """

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(self._system, LocalFileSystem)

    async def write_file(self, job: str, name: str, data: bytes) -> None:
        """Write a file completely or not at all."""
        await self.write_parts(job, name, lambda: (data,))

    async def write_parts(
        self, job: str, name: str, read_parts: Callable[[], Iterable[bytes]]
    ) -> None:
        """Write a file completely or not at all; each attempt reads its parts on a thread."""
        folder, path = f"{self._root}/{job}", f"{self._root}/{job}/{name}"

        def write() -> None:
            try:
                self._make_folder(folder)
                with self._system.open(path, "wb") as file:
                    for part in read_parts():
                        file.write(part)
                if self._is_local:
                    os.chmod(path, 0o600)
            except BaseException:  # whatever it is, half a file must not stay; it goes on
                with suppress(OSError):
                    self._system.rm_file(path)
                raise

        await _try_again(write)

    def _make_folder(self, folder: str) -> None:
        if self._is_local:
            # Both are closed before they have files: `makedirs` gives its mode to the last one.
            os.makedirs(self._root, 0o700, exist_ok=True)
            os.makedirs(folder, 0o700, exist_ok=True)
        else:
            self._system.makedirs(folder, exist_ok=True)

    async def measure_file(self, job: str, name: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""
        path = f"{self._root}/{job}/{name}"
        size: int = await _try_again(lambda: self._system.size(path), FileNotFoundError)
        return size

    def read_parts(self, job: str, name: str, start: int, end: int) -> Generator[bytes, None, None]:
        """Yield the bytes from `start` to before `end` in parts; read it on a thread."""
        with self._system.open(f"{self._root}/{job}/{name}", "rb") as file:
            file.seek(start)
            while start < end and (part := file.read(min(PART_BYTES, end - start))):
                start += len(part)
                yield part

    async def read_file(self, job: str, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        path = f"{self._root}/{job}/{name}"
        data: bytes = await _try_again(lambda: self._system.cat_file(path), FileNotFoundError)
        return data

    async def delete_files(self, job: str) -> None:
        """Delete all of a job's files."""

        def delete() -> None:
            if self._system.exists(f"{self._root}/{job}"):
                self._system.rm(f"{self._root}/{job}", recursive=True)

        await _try_again(delete)


async def _try_again(work: Callable[[], T], *final: type[Exception]) -> T:
    """Return what `work` returns on a thread.

    Raises StoreUnavailable where it fails each time, and errors of the types `final` at once, as
    those of a part that cannot be made.
    """
    at_once: tuple[type[Exception], ...] = (ApiError, EngineError, *final)
    for pause_s in (*TRY_AGAIN_AFTER_S, None):
        try:
            return await asyncio.to_thread(work)
        except at_once:
            raise
        except Exception as error:  # file systems raise errors of many libraries
            if pause_s is None:
                message = "the store of results is full or cannot be reached; try again"
                raise StoreUnavailable(503, "results_unavailable", message) from error
            logger.warning("jobs: a file cannot be read or written: %r; it is tried again", error)
        await asyncio.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")
