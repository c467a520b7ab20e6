"""The one place that knows what all ingress replicas have let in, and what each of them makes."""

from collections.abc import Mapping
from typing import Any

from ray import serve

from deployments.accounts import Accounts, Charge, Patience, Share, Snapshot, Verdict
from deployments.in_flight import AnswersInFlight
from deployments.ledger_store import LedgerStore
from deployments.settings import NoTunables, RedisServer
from deployments.tracing import trace_calls


@serve.deployment(max_ongoing_requests=10_000)  # those who wait for another's answer count
@trace_calls
class Ledger:
    """`Accounts` and `AnswersInFlight` for every ingress.

    It may end at any time: beats bring back what was let in, and who waits for an answer makes it.
    With a Redis, the next one also knows speeds and rates, and knows all of it at once.
    """

    async def __init__(self, redis: RedisServer | None) -> None:  # type: ignore[misc]  # by Serve
        self._accounts, self._in_flight = Accounts(), AnswersInFlight()
        if redis:
            self._store = LedgerStore(
                redis, self._accounts
            )  # asyncio itself would not keep its task
            await self._store.start_writing()

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def admit(
        self, ingress: str, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Let a request in and charge it, or say why not and how long to wait."""
        return self._accounts.admit(ingress, number, charge, share, patience)

    async def settle(self, ingress: str, number: str, done: bool) -> None:
        """End a charge."""
        self._accounts.settle(ingress, number, done=done)

    async def renew_charges(self, ingress: str, charges: Mapping[str, Charge]) -> None:
        """Keep an ingress's charges."""
        self._accounts.renew_charges(ingress, charges)
        self._in_flight.drop_silent_ingresses(self._accounts.live_ingresses)

    async def claim_answer(self, ingress: str, number: str, key: str) -> bool:
        """Say whether the answer of this key is the caller's to make; else another makes it."""
        return self._in_flight.claim_answer(ingress, number, key)

    async def wait_for_answer(self, key: str) -> Any:
        """Wait for the answer that another makes; None: it came to nothing, or came just before."""
        return await self._in_flight.wait_for_answer(key)

    async def check_waiters(self, number: str, key: str) -> bool:
        """Say whether others wait for what this attempt has made; if not, it is over."""
        return self._in_flight.check_waiters(number, key)

    async def deliver_answer(self, number: str, key: str, answer: Any) -> None:
        """End an attempt: with the answer, or with None, so that one of those who wait makes it."""
        self._in_flight.deliver_answer(number, key, answer)

    async def snapshot(self) -> Snapshot:
        """Return what is outstanding, and how fast models work."""
        return self._accounts.snapshot()
