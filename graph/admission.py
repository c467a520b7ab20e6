"""Decides whether a task is admitted, and keeps the ledger informed of admitted tasks."""

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

from deployments.accounts import NOTHING_KNOWN, Snapshot, Verdict
from deployments.capacity import Capacity, Patience, get_capacity
from deployments.ledger_state import Charge, Share
from deployments.tracing import open_span
from graph.calls import Method, call, start_detached
from graph.errors import ApiError
from graph.metrics import Metrics
from graph.settings import MEDIA, Limits
from graph.tasks.task import Turn

TIMEOUT_S = 1.0
BEAT_S = 1.0
"""Seconds between two reports of what is left of the open charges."""
LEDGER_BACK_S = 5.0
"""The `Retry-After` while the ledger cannot be reached."""
logger = logging.getLogger("ray.serve")


class LedgerClient:
    """The client of the ledger in one ingress replica, with the replica's name and open charges."""

    def __init__(self, methods: Any) -> None:
        self.methods = methods
        self.name = uuid4().hex
        self.open: dict[str, Charge] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None

    async def call_ledger(self, method: Method, *args: Any) -> Any:
        """Call the ledger; return None where it does not answer, for any reason."""
        self._keep_beating()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await call(method, *args)
        except Exception as error:  # noqa: BLE001 - counting must not fail a request
            logger.warning("the ledger is out of reach (%r); each ingress limits itself", error)
            return None

    async def await_ledger(self, method: Method, *args: Any) -> Any:
        """Call a method of the ledger that may take long; return None where it fails."""
        try:
            return await call(method, *args)
        except Exception as error:  # noqa: BLE001 - see `call_ledger`
            logger.warning("the ledger ended (%r) while a request waited for an answer", error)
            return None

    def call_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a call without waiting for it, also while a request is being cancelled."""
        task = start_detached(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_for_calls(self) -> None:
        """Wait until all calls of `call_later` have ended."""
        await asyncio.gather(*self._tasks)

    async def fetch_snapshot(self) -> Snapshot:
        """Return the outstanding work of all ingresses.

        Raises ApiError 503 where the ledger cannot be reached.
        """
        found: Snapshot = await call(self.methods.snapshot)
        return found

    def _keep_beating(self) -> None:
        if self._beating is None or self._beating.done():
            empty = contextvars.Context()  # it outlives the request that starts it
            self._beating = asyncio.create_task(self._send_beats(), context=empty)

    async def _send_beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self.call_ledger(self.methods.renew_charges, self.name, dict(self.open))

    async def close(self) -> None:
        """End the beats and the calls that still run."""
        tasks = [task for task in (self._beating, *self._tasks) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


REASONS = {
    "rate": ("rate_limited", "this key has used its requests of this minute"),
    "key": ("key_limit", "this key has as much outstanding work as it may have"),
    "busy": ("overloaded", "more requests are waiting than can start soon"),
}


MEDIA_CAPACITY = Capacity(speed=50.0)
"""A low estimate of the speed at which uploads are decoded, which no replica reports."""


def read_capacity(model: str) -> Capacity:
    """Return what the replicas of a model have reported."""
    return MEDIA_CAPACITY if model == MEDIA else get_capacity(model)


class Hold:
    """The charges of one admitted task, by name, until each is released."""

    def __init__(self, ledger: LedgerClient) -> None:
        self._ledger = ledger
        self._numbers: dict[str, str] = {}
        self._prices: dict[str, float] = {}
        self.turns: dict[str, Turn] = {}
        """The task's places in the queues of its models."""

    @property
    def names(self) -> Collection[str]:
        """The names of the charges that are held: that of the model, if it was admitted."""
        return self._numbers.keys()

    def add_charge(self, number: str, charge: Charge, verdict: Verdict) -> None:
        """Add an admitted charge with its turn."""
        self._numbers[charge.model], self._prices[charge.model] = number, charge.row_seconds
        self.turns[charge.model] = Turn(verdict.turn, verdict.turn_s)

    def begin_charge(self, name: str, charge: Charge) -> None:
        """Charge work that begins now without asking; the ledger cannot refuse it."""
        assert name not in self._numbers, f"the charge {name!r} has begun already"
        ledger, number = self._ledger, uuid4().hex
        ledger.open[number] = charge
        self._numbers[name], self._prices[name] = number, charge.row_seconds
        ledger.call_later(ledger.call_ledger(ledger.methods.book, ledger.name, number, charge))

    def reduce_charge(self, name: str, left: float, clips: int) -> None:
        """Set what is left of a charge, 0 to 1, and how many clips it still takes at once."""
        if left <= 0:
            self.release_charge(name, done=True)
        elif number := self._numbers.get(name):
            row_seconds = left * self._prices[name]
            reduced = replace(self._ledger.open[number], row_seconds=row_seconds, clips=clips)
            self._ledger.open[number] = reduced

    def release_charge(self, name: str, *, done: bool) -> None:
        """End one charge; `done` means that its work was finished."""
        if (number := self._numbers.pop(name, None)) is None:
            return
        ledger = self._ledger
        left = 0.0 if done else ledger.open[number].row_seconds
        del ledger.open[number]
        ledger.call_later(ledger.call_ledger(ledger.methods.settle, ledger.name, number, left))

    def release_all(self, *, done: bool) -> None:
        """End all charges that are left."""
        for name in list(self._numbers):
            self.release_charge(name, done=done)


class Admission:
    """Charges tasks while they run; one for each ingress replica."""

    def __init__(
        self,
        ledger: LedgerClient,
        limits: Callable[[], Limits],
        metrics: Metrics,
        capacity: Callable[[str], Capacity],
    ) -> None:
        """Create an admission; `capacity` returns what the replicas of a model have reported."""
        self._ledger, self._limits, self._metrics = ledger, limits, metrics
        self._capacity = capacity

    async def meter_requests(self, share: Share, number: int) -> Snapshot:
        """Count requests that begin later, such as a list of jobs, against their key's rate.

        Return the outstanding work. It is one call of the ledger for all of them. Raises ApiError
        429, and then counts none.
        """
        ledger = self._ledger
        metered: tuple[Verdict, Snapshot] | None = await ledger.call_ledger(
            ledger.methods.meter_requests, share, number
        )
        if metered is None:
            return NOTHING_KNOWN
        verdict, snapshot = metered
        if verdict.refused_for:
            raise _build_refusal(verdict)
        return snapshot

    @asynccontextmanager
    async def hold_charges(
        self, share: Share, charges: Sequence[Charge], max_wait_s: float | None = None
    ) -> AsyncIterator[Hold]:
        """Hold a task's charges. Raises ApiError 429 where one of them is refused.

        `max_wait_s` is how long the task may wait for other tasks, by default the limit's. Only the
        first charge counts against the rate and the bound of the key: a task is one request.
        """
        hold, done = Hold(self._ledger), False
        try:
            for charge in charges:
                await self._admit_one(hold, share, charge, max_wait_s or self._limits().max_wait_s)
                share = replace(share, requests_per_minute=None, row_seconds=None)
            yield hold
            done = True
        finally:
            hold.release_all(done=done)

    async def _admit_one(self, hold: Hold, share: Share, charge: Charge, max_wait_s: float) -> None:
        """Add a charge to a hold. Raises ApiError 429."""
        patience = Patience(max_wait_s, self._capacity(charge.model))
        number, admitted = uuid4().hex, False
        self._ledger.open[number] = charge
        try:
            with open_span("admission", {"audiocraft.row_seconds": charge.row_seconds}) as asked:
                verdict = await self._ask_ledger(hold, number, charge, share, patience)
                asked.set_attribute("audiocraft.verdict", verdict.refused_for or "admitted")
            outcome = verdict.refused_for or "admitted"
            self._metrics.count_price(charge.model, outcome, charge.row_seconds)
            if verdict.refused_for:
                raise _build_refusal(verdict)
            hold.add_charge(number, charge, verdict)
            admitted = True
        finally:
            if not admitted:
                del self._ledger.open[number]

    async def _ask_ledger(
        self, hold: Hold, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Ask the ledger; where it does not answer, apply the bound of this replica."""
        limits, ledger = self._limits(), self._ledger
        arguments = ledger.name, number, charge, share, patience
        verdict: Verdict | None = await ledger.call_ledger(ledger.methods.admit, *arguments)
        if verdict:
            return verdict
        total = sum(one.row_seconds for one in ledger.open.values())
        alone = len(ledger.open) == 1 + len(hold.names)
        full = total > limits.local_row_seconds and not alone
        return Verdict("busy" if full else None, LEDGER_BACK_S, turn=time.time())


def _build_refusal(verdict: Verdict) -> ApiError:
    assert verdict.refused_for
    code, reason = REASONS[verdict.refused_for]
    wait = max(1, math.ceil(verdict.wait_s))
    message = f"{reason}; try again in {wait} s"
    return ApiError(429, code, message, headers={"retry-after": str(wait)})
