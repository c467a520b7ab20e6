"""The store that jobs need: texts that change as a whole, a queue that loses no work, and files."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import fsspec

from graph.errors import ApiError

PART_BYTES = 2**20
"""The bytes that are read of a file at once."""


@dataclass(frozen=True)
class Work:
    """An entry of the queue, which is done even if a process that works on it dies."""

    kind: Literal["job", "webhook"]
    name: str
    since: float
    """Unix seconds; the entry that has waited longest comes first."""
    owner: str = ""
    model: str = ""
    row_seconds: float = 0.0


Handler = Callable[[Work, int], Awaitable[float | None]]
"""Does a piece of work in its n-th attempt, from 1, and never raises. Returns None once the work is
done, or the seconds after which it is tried again."""


class Store(Protocol):
    """A store that all ingress replicas share; each method is one atomic change.

    Work is handed to handlers until one returns None, also after the lease where a handler's
    process has died. So it may be done twice, and `swap_text` decides which result counts.
    """

    async def open(self) -> None:
        """Connect. Raises OSError where the store cannot be reached."""

    async def close(self) -> None:
        """Disconnect."""

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """Write a text unless its name is stored already; return the text that is stored then."""

    async def get_text(self, name: str) -> str | None:
        """Return a text, or None where its name is not stored."""

    async def swap_text(self, name: str, old: str, new: str, expires: float) -> bool:
        """Replace a text if it equals `old`; return whether it did."""

    async def delete_text(self, name: str) -> None:
        """Delete a text."""

    async def list_expired(self) -> list[str]:
        """Return the names of expired texts, which stay until they are deleted."""

    async def put_work(self, work: Work) -> None:
        """Queue work, unless it is queued already."""

    async def withdraw_work(self, work: Work) -> None:
        """Remove work from the queue if nobody has begun it."""

    async def list_waiting(self) -> list[Work]:
        """Return the jobs that nobody works on; the job that has waited longest comes first."""

    async def serve_work(self, handle: Handler, most: int) -> None:
        """Hand at most `most` entries at once to `handle`, until cancelled; the rest is queued."""


class Files:
    """The files of jobs, by the name of the job and of the file."""

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)

    async def write_file(self, job: str, name: str, data: bytes) -> None:
        """Write a file completely or not at all. Raises ApiError 503 where this fails."""
        await self.write_parts(job, name, (data,))

    async def write_parts(self, job: str, name: str, parts: Iterable[bytes]) -> None:
        """Write a file while its parts are made, completely or not at all. Raises ApiError 503."""
        path = f"{self._root}/{job}/{name}"

        def write() -> None:
            try:
                self._system.makedirs(f"{self._root}/{job}", exist_ok=True)
                with self._system.open(path, "wb") as file:
                    for part in parts:
                        file.write(part)
            except BaseException:
                with suppress(OSError):
                    self._system.rm_file(path)
                raise

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            message = "the store of results is full or cannot be reached; try again"
            raise ApiError(503, "results_unavailable", message) from error

    async def measure_file(self, job: str, name: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""
        size: int = await asyncio.to_thread(self._system.size, f"{self._root}/{job}/{name}")
        return size

    def read_parts(self, job: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end` in parts; read it on a thread."""
        with self._system.open(f"{self._root}/{job}/{name}", "rb") as file:
            file.seek(start)
            while start < end and (part := file.read(min(PART_BYTES, end - start))):
                start += len(part)
                yield part

    async def read_file(self, job: str, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        path = f"{self._root}/{job}/{name}"
        data: bytes = await asyncio.to_thread(self._system.cat_file, path)
        return data

    async def delete_files(self, job: str) -> None:
        """Delete all of a job's files."""

        def delete() -> None:
            if self._system.exists(f"{self._root}/{job}"):
                self._system.rm(f"{self._root}/{job}", recursive=True)

        await asyncio.to_thread(delete)
