"""Answers to requests that can have but one: joined while they are made, and kept for a while.

Kept by each ingress for itself; joined across all of them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from graph.calls import apart
from graph.in_flight import Joining

ENTRY_BYTES = 2000
Found = Literal["hit", "joined", "miss"]


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    body: bytes
    media_type: str
    headers: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes that it takes, with what it is kept by."""
        return len(self.body) + ENTRY_BYTES


@dataclass
class Flight:
    """An answer that is being made, and how many wait for it."""

    task: asyncio.Task[tuple[Answer, Found]]
    waiters: int = 0


class Cache:
    """One ingress replica's; the least recently used goes first where `most_bytes` are exceeded."""

    def __init__(self, most_bytes: Callable[[], int], joining: Joining) -> None:
        self._most_bytes, self._joining = most_bytes, joining
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0
        self._flights: dict[str, Flight] = {}

    def kept(self, key: str) -> Answer | None:
        """Return the answer that is kept, if there is one."""
        self._trim()
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    async def get(self, key: str, make: Callable[[], Awaitable[Answer]]) -> tuple[Answer, Found]:
        """Return the answer that is kept or being made, or make it; its making ends with its last
        waiter, whoever was the first.
        """
        if answer := self.kept(key):
            return answer, "hit"
        first = key not in self._flights
        if first:
            self._flights[key] = Flight(apart(self._make(key, make)))
        flight = self._flights[key]
        flight.waiters += 1
        try:
            made, found = await asyncio.shield(flight.task)
            return made, found if first else "joined"
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.task.cancel()
                if self._flights.get(key) is flight:  # nobody else shall join what is cancelled
                    del self._flights[key]

    async def _make(self, key: str, make: Callable[[], Awaitable[Answer]]) -> tuple[Answer, Found]:
        answer, joined = await self._joining.get(key, make)
        self._keep(key, answer)
        return answer, "joined" if joined else "miss"

    def _keep(self, key: str, answer: Answer) -> None:
        if answer.size <= self._most_bytes() and key not in self._kept:
            self._kept[key] = answer
            self._bytes += answer.size
            self._trim()

    def _trim(self) -> None:
        while self._bytes > self._most_bytes():
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size
