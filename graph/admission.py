"""Admission: whether a task is let in, asked of the ledger, and its charges while it runs."""

import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from deployments.accounts import Charge, Patience, Share, Verdict
from deployments.tracing import span
from graph.errors import ApiError
from graph.ledger_client import BEAT_S, LedgerClient
from graph.metrics import Metrics
from graph.settings import Limits

REASONS = {
    "rate": ("rate_limited", "this key's requests a minute are spent"),
    "key": ("key_limit", "this key has as much outstanding as it may"),
    "busy": ("overloaded", "more is waiting than can start soon"),
}


class Hold:
    """The charges of one admitted task, by model, until each is released."""

    def __init__(self, ledger: LedgerClient) -> None:
        self._ledger = ledger
        self._numbers: dict[str, str] = {}

    @property
    def models(self) -> Collection[str]:
        """The models whose charges are held."""
        return self._numbers.keys()

    def add(self, model: str, number: str) -> None:
        """Add an admitted charge."""
        self._numbers[model] = number

    def release(self, model: str, *, done: bool) -> None:
        """End the charge of one model; `done` says that its work was finished, not given up."""
        if (number := self._numbers.pop(model, None)) is None:
            return
        ledger = self._ledger
        del ledger.open[number]
        ledger.call_later(ledger.tell(ledger.methods.settle, ledger.name, number, done))

    def release_all(self, *, done: bool) -> None:
        """End all charges that are left."""
        for model in list(self._numbers):
            self.release(model, done=done)


class Admission:
    """Charges tasks while they run; one for each ingress replica."""

    def __init__(
        self,
        ledger: LedgerClient,
        limits: Callable[[], Limits],
        metrics: Metrics,
        slots: Callable[[str], int],
    ) -> None:
        """Take the ledger and `slots`, which returns how many clips a model decodes at once."""
        self._ledger, self._limits, self._metrics, self._slots = ledger, limits, metrics, slots

    @asynccontextmanager
    async def hold(
        self, share: Share, charges: Sequence[Charge], max_wait_s: float | None = None
    ) -> AsyncIterator[Hold]:
        """Hold a task's charges. Raises ApiError 429 where one of them is not let in.

        `max_wait_s` is how long others may have the task wait, by default the limit's. The task is
        one request: only its first charge counts against the rate and the bound of its key.
        """
        hold, done = Hold(self._ledger), False
        try:
            for charge in charges:
                await self._admit(hold, share, charge, max_wait_s or self._limits().max_wait_s)
                share = replace(share, requests_per_minute=None, row_seconds=None)
            yield hold
            done = True
        finally:
            hold.release_all(done=done)

    async def _admit(self, hold: Hold, share: Share, charge: Charge, max_wait_s: float) -> None:
        """Add a charge to a hold. Raises ApiError 429."""
        patience = Patience(max_wait_s, self._slots(charge.model))
        number, admitted = uuid4().hex, False
        self._ledger.open[number] = charge
        try:
            with span("admission", {"audiocraft.row_seconds": charge.row_seconds}) as asked:
                verdict = await self._ask(hold, number, charge, share, patience)
                asked.set_attribute("audiocraft.verdict", verdict.refused_for or "admitted")
            outcome = verdict.refused_for or "admitted"
            self._metrics.count_price(charge.model, outcome, charge.row_seconds)
            if verdict.refused_for:
                raise _build_refusal(verdict)
            hold.add(charge.model, number)
            admitted = True
        finally:
            if not admitted:
                del self._ledger.open[number]

    async def _ask(
        self, hold: Hold, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Ask the ledger; where it is out of reach, apply this replica's own bound."""
        limits, ledger = self._limits(), self._ledger
        arguments = ledger.name, number, charge, share, patience
        verdict: Verdict | None = await ledger.tell(ledger.methods.admit, *arguments)
        if verdict:
            return verdict
        total = sum(one.row_seconds for one in ledger.open.values())
        alone = len(ledger.open) == 1 + len(hold.models)
        full = total > limits.local_row_seconds and not alone
        return Verdict("busy" if full else None, BEAT_S)


def _build_refusal(verdict: Verdict) -> ApiError:
    assert verdict.refused_for
    code, reason = REASONS[verdict.refused_for]
    wait = max(1, math.ceil(verdict.wait_s))
    message = f"{reason}; try again in {wait} s"
    return ApiError(429, code, message, headers={"retry-after": str(wait)})
