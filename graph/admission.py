"""Whether a request is let in: asked of the ledger, whose word is kept alive by beats."""

import asyncio
import contextvars
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from deployments.accounts import LEASE_S, Charge, Share, Verdict
from deployments.tracing import span
from graph.calls import Method, apart, call
from graph.errors import ApiError
from graph.metrics import Metrics
from graph.settings import Limits

LEDGER_TIMEOUT_S = 1.0
BEAT_S = LEASE_S / 3
REASONS = {
    "rate": ("rate_limited", "this key's requests a minute are spent"),
    "key": ("key_limit", "this key has as much outstanding as it may"),
    "busy": ("overloaded", "more is waiting than can start soon"),
}
logger = logging.getLogger("ray.serve")


class Admission:
    """Charges requests for as long as they last; one for each ingress replica."""

    def __init__(self, ledger: Any, limits: Callable[[], Limits], metrics: Metrics) -> None:
        self._ledger, self._limits, self._metrics = ledger, limits, metrics
        self._name = uuid4().hex
        self._open: dict[str, Charge] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def charged(
        self, share: Share, model: str, row_seconds: float, max_wait_s: float | None = None
    ) -> AsyncIterator[None]:
        """Hold a charge. Raises ApiError 429 where the request is not let in.

        `max_wait_s` is what others may have the request wait for, by default the limits'.
        """
        if self._beating is None or self._beating.done():
            nobody = contextvars.Context()  # it is of no request, and outlives this one
            self._beating = asyncio.create_task(self._beat(), context=nobody)
        charge = Charge(share.name, share.weight, model, row_seconds)
        number, admitted, done = uuid4().hex, False, False
        self._open[number] = charge
        try:
            with span("admission", {"audiocraft.row_seconds": row_seconds}) as asked:
                verdict = await self._ask(number, charge, share, max_wait_s)
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
            del self._open[number]
            if admitted:
                self._settle(number, done)

    async def _ask(
        self, number: str, charge: Charge, share: Share, max_wait_s: float | None
    ) -> Verdict:
        """Ask the ledger; where it is out of reach, hold to this replica's own cap."""
        limits = self._limits()
        told = self._name, number, charge, share, max_wait_s or limits.max_wait_s
        verdict: Verdict | None = await self._tell(self._ledger.admit, *told)
        if verdict:
            return verdict
        total = sum(one.row_seconds for one in self._open.values())
        alone = len(self._open) == 1
        full = total > limits.local_row_seconds and not alone
        return Verdict("busy" if full else None, BEAT_S)

    def _settle(self, number: str, done: bool) -> None:
        """Tell the ledger without waiting: this runs while a request is being cancelled."""

        task = apart(self._tell(self._ledger.settle, self._name, number, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._tell(self._ledger.beat, self._name, dict(self._open))

    async def _tell(self, method: Method, *args: Any) -> Any:
        """Call the ledger; return None where it is out of reach, whatever the reason."""
        try:
            async with asyncio.timeout(LEDGER_TIMEOUT_S):
                return await call(method, *args)
        except Exception as error:  # noqa: BLE001 - what counts requests must not fail them
            logger.warning("the ledger is out of reach (%r); the local cap holds", error)
            return None

    async def snapshot(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return row-seconds outstanding, and finished a second of work, by model.

        Raises ApiError 503 where the ledger is out of reach.
        """
        told = await call(self._ledger.snapshot)
        return told["backlog"], told["speed"]

    async def close(self) -> None:
        """End what runs beside requests."""
        tasks = [task for task in (self._beating, *self._tasks) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
