"""Answers that several ingresses are asked for at once: one makes each, the others wait for it."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from deployments.accounts import LEASE_S


@dataclass
class AnswerInFlight:
    """An answer that an ingress makes."""

    ingress: str
    number: str
    """Of this attempt: an ingress may leave one and begin another."""
    began: float
    answer: asyncio.Future[Any]
    """None: it came to nothing."""
    waiting: int = 0


@dataclass
class AnswersInFlight:
    """Who makes what. An ingress that is silent for `LEASE_S` makes nothing any more."""

    clock: Callable[[], float] = time.monotonic
    by_key: dict[str, AnswerInFlight] = field(default_factory=dict)

    def claim_answer(self, ingress: str, number: str, key: str) -> bool:
        """Say whether the answer of this key is the caller's to make; else another makes it."""
        if key in self.by_key:
            return False
        answer = asyncio.get_running_loop().create_future()
        self.by_key[key] = AnswerInFlight(ingress, number, self.clock(), answer)
        return True

    async def wait_for_answer(self, key: str) -> Any:
        """Wait for the answer that another makes; None: it came to nothing, or came just before."""
        if (found := self.by_key.get(key)) is None:
            return None
        found.waiting += 1
        try:
            return await asyncio.shield(found.answer)
        finally:
            found.waiting -= 1

    def check_waiters(self, number: str, key: str) -> bool:
        """Say whether others wait for what this attempt has made; if not, it is over."""
        found = self.by_key.get(key)
        if found is None or found.number != number:
            return False
        if not found.waiting:
            del self.by_key[key]
        return found.waiting > 0

    def deliver_answer(self, number: str, key: str, answer: Any) -> None:
        """End an attempt: with the answer, or with None, so that one of those who wait makes it."""
        found = self.by_key.get(key)
        if found and found.number == number:
            del self.by_key[key]
            found.answer.set_result(answer)

    def drop_silent_ingresses(self, alive: Collection[str]) -> None:
        """End the attempts of ingresses that are not, or no longer, known to be alive."""
        now = self.clock()
        for key, one in list(self.by_key.items()):
            if one.ingress not in alive and now - one.began > LEASE_S:
                self.deliver_answer(one.number, key, None)
