"""The Ray Serve deployment that holds the accounts and the answers in flight of all ingresses."""

from collections.abc import Mapping
from typing import Any

from ray import serve

from deployments.accounts import Accounts, Snapshot, Verdict
from deployments.capacity import Patience
from deployments.in_flight import AnswersInFlight
from deployments.ledger_state import Charge, Share
from deployments.ledger_store import LedgerStore
from deployments.settings import NoTunables, RedisServer
from deployments.tracing import trace_calls


@serve.deployment(max_ongoing_requests=10_000)  # includes calls that wait for an answer
@trace_calls
class Ledger:
    """Serves `Accounts` and `AnswersInFlight` to every ingress.

    It may restart at any time: ingresses renew their charges, and one that waits for an answer
    computes it itself. With Redis, the new ledger also has the speeds and rates immediately.
    """

    async def __init__(self, redis: RedisServer | None) -> None:  # type: ignore[misc]  # by Serve
        self._accounts, self._in_flight = Accounts(), AnswersInFlight()
        if redis:
            # The reference keeps the store's task alive, since asyncio would not.
            self._store = LedgerStore(redis, self._accounts)
            await self._store.start_writing()

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def admit(
        self, ingress: str, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Admit a request and charge it, or return the reason and the time to wait."""
        return self._accounts.admit(ingress, number, charge, share, patience)

    async def meter_requests(self, share: Share, number: int) -> tuple[Verdict, Snapshot]:
        """Count requests that begin later against their key's rate; return the work as well."""
        return self._accounts.meter_requests(share, number)

    async def book(self, ingress: str, number: str, charge: Charge) -> None:
        """Charge work that has begun, whatever is outstanding."""
        self._accounts.book(ingress, number, charge)

    async def settle(self, ingress: str, number: str, left: float) -> None:
        """Remove a charge, of which `left` row-seconds were not worked off."""
        self._accounts.settle(ingress, number, left)

    async def renew_charges(self, ingress: str, charges: Mapping[str, Charge]) -> None:
        """Replace the charges of an ingress, and end the attempts of dead ingresses."""
        self._accounts.renew_charges(ingress, charges)
        self._in_flight.drop_silent_ingresses(self._accounts.live_ingresses)

    async def claim_answer(self, ingress: str, number: str, key: str) -> bool:
        """Return whether the caller shall compute the answer of this key; else another does."""
        return self._in_flight.claim_answer(ingress, number, key)

    async def wait_for_answer(self, key: str) -> Any:
        """Wait for another ingress's answer; None if its attempt failed or has already ended."""
        return await self._in_flight.wait_for_answer(key)

    async def check_waiters(self, number: str, key: str) -> bool:
        """Return whether others wait for this attempt's answer; if none do, end the attempt."""
        return self._in_flight.check_waiters(number, key)

    async def deliver_answer(self, number: str, key: str, answer: Any) -> None:
        """End an attempt with its answer, or with None so that a waiting ingress computes it."""
        self._in_flight.deliver_answer(number, key, answer)

    async def snapshot(self) -> Snapshot:
        """Return the outstanding work and the speed of each model."""
        return self._accounts.snapshot()
