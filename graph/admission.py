"""Whether a request is let in: asked of the ledger, and paid for as long as the request lasts."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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


class Admission:
    """Charges requests for as long as they last; one for each ingress replica."""

    def __init__(
        self, ledger: LedgerClient, limits: Callable[[], Limits], metrics: Metrics
    ) -> None:
        self._ledger, self._limits, self._metrics = ledger, limits, metrics

    @asynccontextmanager
    async def charged(
        self, share: Share, charge: Charge, slots: int = 0, max_wait_s: float | None = None
    ) -> AsyncIterator[None]:
        """Hold a charge. Raises ApiError 429 where the request is not let in.

        So many clips start at once, where the model has slots. `max_wait_s` is what others may have
        the request wait for, by default the limits'.
        """
        limits, model, row_seconds = self._limits(), charge.model, charge.row_seconds
        patience = Patience(max_wait_s or limits.max_wait_s, slots)
        number, admitted, done = uuid4().hex, False, False
        self._ledger.open[number] = charge
        try:
            with span("admission", {"audiocraft.row_seconds": row_seconds}) as asked:
                verdict = await self._ask(number, charge, share, patience)
                asked.set_attribute("audiocraft.verdict", verdict.refused_for or "admitted")
            self._metrics.priced(model, verdict.refused_for or "admitted", row_seconds)
            if verdict.refused_for:
                code, reason = REASONS[verdict.refused_for]
                wait = max(1, math.ceil(verdict.wait_s))
                message = f"{reason}; try again in {wait} s"
                raise ApiError(429, code, message, headers={"retry-after": str(wait)})
            admitted = True
            yield
            done = True
        finally:
            del self._ledger.open[number]
            if admitted:
                ended = self._ledger.methods.settle, self._ledger.name, number, done
                self._ledger.later(self._ledger.tell(*ended))

    async def _ask(self, number: str, charge: Charge, share: Share, patience: Patience) -> Verdict:
        """Ask the ledger; where it is out of reach, hold to this replica's own cap."""
        limits, ledger = self._limits(), self._ledger
        told = ledger.name, number, charge, share, patience
        verdict: Verdict | None = await ledger.tell(ledger.methods.admit, *told)
        if verdict:
            return verdict
        total = sum(one.row_seconds for one in ledger.open.values())
        alone = len(ledger.open) == 1
        full = total > limits.local_row_seconds and not alone
        return Verdict("busy" if full else None, BEAT_S)
