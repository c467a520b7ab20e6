"""What jobs need of a store: texts that change whole, and a queue whose work is never lost."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol


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

    async def add(self, name: str, text: str, expires: float) -> str:
        """Write a text unless there is one of this name; return the one that is there."""

    async def get(self, name: str) -> str | None:
        """Return a text."""

    async def swap(self, name: str, old: str, new: str, expires: float) -> bool:
        """Replace a text if it is still `old`; say whether it was."""

    async def forget(self, name: str) -> None:
        """Delete a text."""

    async def expired(self) -> list[str]:
        """Return names of texts whose time is over; they stay until they are forgotten."""

    async def put(self, work: Work) -> None:
        """Queue work, unless it is queued already."""

    async def withdraw(self, work: Work) -> None:
        """Take back work that nobody has begun."""

    async def waiting(self) -> list[Work]:
        """Return the jobs that nobody works on, longest waiting first."""

    async def serve(self, handle: Handler, most: int) -> None:
        """Hand work to `handle`, so much at once, until cancelled; what is left then goes back."""
