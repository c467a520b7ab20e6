"""Answers to requests that can have but one: joined while they are made, and kept for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from graph.calls import apart

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

    task: asyncio.Task[Answer]
    waiters: int = 0


class Cache:
    """One ingress replica's; the least recently used goes first where `most_bytes` are exceeded."""

    def __init__(self, most_bytes: Callable[[], int]) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Hashable, Flight] = {}

    def kept(self, key: Hashable) -> Answer | None:
        """Return the answer that is kept, if there is one."""
        self._trim()
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    async def get(
        self, key: Hashable, make: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, Found]:
        """Return the answer that is kept or being made, or make it; its making ends with its last
        waiter, whoever was the first.
        """
        if answer := self.kept(key):
            return answer, "hit"
        found: Found = "joined"
        if key not in self._flights:
            self._flights[key] = Flight(apart(self._make(key, make)))
            found = "miss"
        flight = self._flights[key]
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task), found
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.task.cancel()
                if self._flights.get(key) is flight:  # nobody else shall join what is cancelled
                    del self._flights[key]

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Answer]]) -> Answer:
        answer = await make()
        self._keep(key, answer)
        return answer

    def _keep(self, key: Hashable, answer: Answer) -> None:
        if answer.size <= self._most_bytes() and key not in self._kept:
            self._kept[key] = answer
            self._bytes += answer.size
            self._trim()

    def _trim(self) -> None:
        while self._bytes > self._most_bytes():
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size
