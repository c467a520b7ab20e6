"""Identical requests at several ingresses: one makes the answer, and the others get it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

from graph.ledger_client import LedgerClient

T = TypeVar("T")


class Joining:
    """One ingress replica's part in it; the ledger knows who makes what."""

    def __init__(self, ledger: LedgerClient) -> None:
        self._ledger, self._methods = ledger, ledger.methods

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Return the answer, and whether another made it. Without the ledger it is made here."""
        number = uuid4().hex
        try:
            claimed = self._methods.claim, self._ledger.name, number, key
            while await self._ledger.tell(*claimed) is False:
                theirs: T | None = await self._ledger.wait_for(self._methods.answer, key)
                if theirs is not None:
                    return theirs, True
            answer = await make()
        except BaseException:  # also where its client left: one of those who wait shall make it
            self._ledger.later(self._ledger.tell(self._methods.give, number, key, None))
            raise
        self._ledger.later(self._offer(number, key, answer))
        return answer, False

    async def _offer(self, number: str, key: str, answer: object) -> None:
        if await self._ledger.tell(self._methods.wanted, number, key):
            await self._ledger.tell(self._methods.give, number, key, answer)
