"""Keeps answers to repeatable tasks, and joins equal requests while an answer is made.

Each ingress keeps answers for itself. Equal requests are joined across all ingresses: one makes the
answer and the others wait for it; the ledger knows who makes what.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from graph.admission import LedgerClient
from graph.calls import start_detached

ENTRY_BYTES = 2000
"""The bytes of a kept answer beside its body."""
Found = Literal["hit", "joined", "miss"]


@dataclass(frozen=True)
class Answer:
    """The whole answer to a request."""

    body: bytes
    media_type: str
    headers: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes that the answer takes in the cache."""
        return len(self.body) + ENTRY_BYTES

    def as_parts(self) -> "AnswerParts":
        """Return the answer as a single part."""
        return AnswerParts((self.body,), self.media_type, self.headers)


@dataclass(frozen=True)
class AnswerParts:
    """An answer whose body is made while its parts are read, once and on threads."""

    parts: Iterable[bytes]
    media_type: str
    headers: dict[str, str]

    def join(self) -> Answer:
        """Read all parts, and return the whole answer."""
        return Answer(b"".join(self.parts), self.media_type, self.headers)


Make = Callable[[], Awaitable[Answer]]


@dataclass
class Flight:
    """An answer that is being made, and how many requests wait for it."""

    task: asyncio.Task[tuple[Answer, Found]]
    waiters: int = 0


class Cache:
    """The answers of one ingress replica; the least recently used is dropped first."""

    def __init__(self, max_bytes: Callable[[], int], ledger: LedgerClient) -> None:
        self._max_bytes, self._ledger = max_bytes, ledger
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0
        self._flights: dict[str, Flight] = {}

    @property
    def enabled(self) -> bool:
        """Whether answers are kept and joined at all."""
        return self._max_bytes() > 0

    def find_answer(self, key: str) -> Answer | None:
        """Return the kept answer, if there is one."""
        self._drop_oldest()
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    async def get_answer(self, key: str, make: Make) -> tuple[Answer, Found]:
        """Return the kept answer, wait for the one that is being made, or make it.

        The making is cancelled when no request waits for the answer any more.
        """
        if kept := self.find_answer(key):
            return kept, "hit"
        first = key not in self._flights
        if first:
            self._flights[key] = Flight(start_detached(self._make_and_keep(key, make)))
        flight = self._flights[key]
        flight.waiters += 1
        try:
            answer, found = await asyncio.shield(flight.task)
            return answer, found if first else "joined"
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.task.cancel()
                if self._flights.get(key) is flight:  # no request may join a cancelled task
                    del self._flights[key]

    async def _make_and_keep(self, key: str, make: Make) -> tuple[Answer, Found]:
        answer, joined = await self._make_or_join(key, make)
        if answer.size <= self._max_bytes() and key not in self._answers:
            self._answers[key] = answer
            self._bytes += answer.size
            self._drop_oldest()
        return answer, "joined" if joined else "miss"

    async def _make_or_join(self, key: str, make: Make) -> tuple[Answer, bool]:
        """Return the answer, and whether another ingress made it. Without the ledger, make it."""
        ledger, number = self._ledger, uuid4().hex
        try:
            claim = ledger.methods.claim_answer, ledger.name, number, key
            while await ledger.call_ledger(*claim) is False:
                wait = ledger.methods.wait_for_answer
                theirs: Answer | None = await ledger.await_ledger(wait, key)
                if theirs is not None:
                    return theirs, True
            answer = await make()
        except BaseException:  # also where the client left: a waiting request makes it
            ledger.call_later(ledger.call_ledger(ledger.methods.deliver_answer, number, key, None))
            raise
        ledger.call_later(self._offer_answer(number, key, answer))
        return answer, False

    async def _offer_answer(self, number: str, key: str, answer: Answer) -> None:
        ledger = self._ledger
        if await ledger.call_ledger(ledger.methods.check_waiters, number, key):
            await ledger.call_ledger(ledger.methods.deliver_answer, number, key, answer)

    def _drop_oldest(self) -> None:
        while self._bytes > self._max_bytes():
            _, dropped = self._answers.popitem(last=False)
            self._bytes -= dropped.size
