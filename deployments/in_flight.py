"""Joins equal requests of several ingresses: one computes the answer, the others wait for it."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from deployments.accounts import LEASE_S


@dataclass
class AnswerInFlight:
    """An answer that an ingress is computing."""

    ingress: str
    number: str
    """The id of the attempt, since an ingress may abandon one attempt and begin another."""
    began: float
    answer: asyncio.Future[Any]
    """The result is None if the attempt failed."""
    waiting: int = 0


@dataclass
class AnswersInFlight:
    """Knows which ingress computes which answer, and ends the attempts of dead ingresses."""

    clock: Callable[[], float] = time.monotonic
    by_key: dict[str, AnswerInFlight] = field(default_factory=dict)

    def claim_answer(self, ingress: str, number: str, key: str) -> bool:
        """Return whether the caller shall compute the answer of this key; else another does."""
        if key in self.by_key:
            return False
        answer = asyncio.get_running_loop().create_future()
        self.by_key[key] = AnswerInFlight(ingress, number, self.clock(), answer)
        return True

    async def wait_for_answer(self, key: str) -> Any:
        """Wait for another ingress's answer; None if its attempt failed or has already ended."""
        if (found := self.by_key.get(key)) is None:
            return None
        found.waiting += 1
        try:
            return await asyncio.shield(found.answer)
        finally:
            found.waiting -= 1

    def check_waiters(self, number: str, key: str) -> bool:
        """Return whether others wait for this attempt's answer; if none do, end the attempt."""
        found = self.by_key.get(key)
        if found is None or found.number != number:
            return False
        if not found.waiting:
            del self.by_key[key]
        return found.waiting > 0

    def deliver_answer(self, number: str, key: str, answer: Any) -> None:
        """End an attempt with its answer, or with None so that a waiting ingress computes it."""
        found = self.by_key.get(key)
        if found and found.number == number:
            del self.by_key[key]
            found.answer.set_result(answer)

    def drop_silent_ingresses(self, alive: Collection[str]) -> None:
        """End attempts older than `LEASE_S` seconds of ingresses that are not alive."""
        now = self.clock()
        for key, one in list(self.by_key.items()):
            if one.ingress not in alive and now - one.began > LEASE_S:
                self.deliver_answer(one.number, key, None)
