"""What jobs need of a store: texts that change whole, a queue that loses no work, and files."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import fsspec

from graph.errors import ApiError


@dataclass(frozen=True)
class Work:
    """Something to be done once, even if who does it dies."""

    kind: Literal["job", "webhook"]
    name: str
    since: float
    """Unix seconds; who waits longest comes first."""
    owner: str = ""
    model: str = ""
    row_seconds: float = 0.0


Handler = Callable[[Work, int], Awaitable[float | None]]
"""Does a piece of work, for the n-th time from 1; raises nothing. Returns None once it is done, or
the seconds after which to try again."""


class Store(Protocol):
    """Shared by all ingress replicas; each method is one atomic change.

    Work that was put is handed to a handler until one returns None: again after the lease, where
    a handler's process died. So it may be done twice, and only `swap` says whose result counts.
    """

    async def open(self) -> None:
        """Connect. Raises OSError where it cannot be reached."""

    async def close(self) -> None:
        """End what `open` began."""

    async def add_text(self, name: str, text: str, expires: float) -> str:
        """Write a text unless there is one of this name; return the one that is there."""

    async def get_text(self, name: str) -> str | None:
        """Return a text."""

    async def swap_text(self, name: str, old: str, new: str, expires: float) -> bool:
        """Replace a text if it is still `old`; say whether it was."""

    async def delete_text(self, name: str) -> None:
        """Delete a text."""

    async def list_expired(self) -> list[str]:
        """Return names of texts whose time is over; they stay until they are forgotten."""

    async def put_work(self, work: Work) -> None:
        """Queue work, unless it is queued already."""

    async def withdraw_work(self, work: Work) -> None:
        """Take back work that nobody has begun."""

    async def list_waiting(self) -> list[Work]:
        """Return the jobs that nobody works on, longest waiting first."""

    async def serve_work(self, handle: Handler, most: int) -> None:
        """Hand work to `handle`, so much at once, until cancelled; what is left then goes back."""


class Files:
    """Files by the name of their job and their own."""

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)

    async def write_file(self, job: str, name: str, data: bytes) -> None:
        """Write a file, whole or not at all. Raises ApiError 503 where it cannot be written."""
        path = f"{self._root}/{job}/{name}"

        def write() -> None:
            try:
                self._system.makedirs(f"{self._root}/{job}", exist_ok=True)
                self._system.pipe_file(path, data)
            except OSError:
                with suppress(OSError):
                    self._system.rm_file(path)
                raise

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            message = "what keeps results is full or cannot be reached; try again"
            raise ApiError(503, "results_unavailable", message) from error

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
