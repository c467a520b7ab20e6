"""Answers that several ingresses are asked for at once: one makes each, the others wait for it."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from deployments.accounts import LEASE_S


@dataclass
class Making:
    """An answer that an ingress makes."""

    ingress: str
    number: str
    """Of this attempt: an ingress may leave one and begin another."""
    began: float
    answer: asyncio.Future[Any]
    """None: it came to nothing."""
    waiting: int = 0


@dataclass
class Joins:
    """Who makes what. An ingress that is silent for `LEASE_S` makes nothing any more."""

    clock: Callable[[], float] = time.monotonic
    making: dict[str, Making] = field(default_factory=dict)

    def claim(self, ingress: str, number: str, key: str) -> bool:
        """Say whether the answer of this key is the caller's to make; else another makes it."""
        if key in self.making:
            return False
        answer = asyncio.get_running_loop().create_future()
        self.making[key] = Making(ingress, number, self.clock(), answer)
        return True

    async def answer(self, key: str) -> Any:
        """Wait for the answer that another makes; None: it came to nothing, or came just before."""
        if (found := self.making.get(key)) is None:
            return None
        found.waiting += 1
        try:
            return await asyncio.shield(found.answer)
        finally:
            found.waiting -= 1

    def wanted(self, number: str, key: str) -> bool:
        """Say whether others wait for what this attempt has made; if not, it is over."""
        found = self.making.get(key)
        if found is None or found.number != number:
            return False
        if not found.waiting:
            del self.making[key]
        return found.waiting > 0

    def give(self, number: str, key: str, answer: Any) -> None:
        """End an attempt: with the answer, or with None, so that one of those who wait makes it."""
        found = self.making.get(key)
        if found and found.number == number:
            del self.making[key]
            found.answer.set_result(answer)

    def drop_silent(self, alive: Collection[str]) -> None:
        """End the attempts of ingresses that are not, or no longer, known to be alive."""
        now = self.clock()
        for key, one in list(self.making.items()):
            if one.ingress not in alive and now - one.began > LEASE_S:
                self.give(one.number, key, None)
