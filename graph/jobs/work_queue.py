"""Hands the work of a store to a handler, and keeps the leases of what is worked on."""

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from graph.jobs import store as stores
from graph.jobs.store import Kind, Store, StoreUnavailable, Taken, Work

POLL_S = 0.2
"""Seconds between two searches for work."""
STORE_AWAY_S = 1.0
"""Seconds until a store that could not be used is tried again."""
Handler = Callable[[Work, int], Awaitable[float | None]]
"""Does a piece of work in its n-th attempt, from 1, and never raises. Returns None once the work is
done, or the seconds after which it is tried again."""
logger = logging.getLogger("ray.serve")


@dataclass
class WorkQueue:
    """Works on one kind of work in one process."""

    store: Store
    kind: Kind
    handle: Handler
    most: int
    """How many pieces of work are handled at once."""
    most_of_a_lane: int
    """How many of these may have the same owner and target."""
    pauses_lanes: bool
    """Whether work that is tried again keeps its place, and its lane waits with it."""
    _running: dict[asyncio.Task[None], Taken] = field(default_factory=dict)
    _paused: dict[str, float] = field(default_factory=dict)
    """When each paused lane goes on, by `time.monotonic`."""
    _renewed: float = field(default_factory=time.monotonic)

    async def serve_work(self) -> None:
        """Handle work until cancelled; what is not done then is queued for others at once."""
        try:
            while True:
                wait_s = POLL_S
                try:
                    await self._renew_leases()
                    await self._take_work()
                except StoreUnavailable:
                    logger.exception("jobs: the store cannot be used; it is tried again")
                    wait_s = STORE_AWAY_S
                await self._wait_for_change(wait_s)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _take_work(self) -> None:
        while len(self._running) < self.most:
            await self._renew_leases()  # first, or a loop that was stalled takes its own work
            taken = await self.store.take_work(self.kind, self._list_closed_lanes())
            if taken is None:
                return
            # Work gets an empty context: it does not belong to the task that serves.
            task = asyncio.create_task(self._do_work(taken), context=contextvars.Context())
            self._running[task] = taken

    def _list_closed_lanes(self) -> set[str]:
        now = time.monotonic()
        self._paused = {lane: until for lane, until in self._paused.items() if until > now}
        lanes = Counter(taken.work.lane for taken in self._running.values())
        full = {lane for lane, running in lanes.items() if running >= self.most_of_a_lane}
        return full | self._paused.keys()

    async def _wait_for_change(self, seconds: float) -> None:
        if not self._running:
            await asyncio.sleep(seconds)
            return
        done, _ = await asyncio.wait(
            self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            del self._running[task]

    async def _do_work(self, taken: Taken) -> None:
        again: float | None = 0.0  # stays where the work is cancelled
        try:
            again = await self.handle(taken.work, taken.attempt)
        finally:
            await asyncio.shield(self._end_work(taken, again))

    async def _end_work(self, taken: Taken, again: float | None) -> None:
        if again and self.pauses_lanes:
            self._paused[taken.work.lane] = time.monotonic() + again
            again = 0.0
        try:
            await self.store.end_work(taken, again)
        except (
            StoreUnavailable
        ):  # the lease ends by itself, and another attempt finds what was done
            logger.exception("jobs: the end of %s could not be written", taken.work.name)

    async def _renew_leases(self) -> None:
        """Renew leases that are due, and stop the work whose lease another process has by now."""
        while time.monotonic() - self._renewed > stores.LEASE_S / 3:
            self._renewed = time.monotonic()
            leases = {taken.work.name: taken.holder for taken in self._running.values()}
            lost = await self.store.renew_work(self.kind, leases) if leases else set()
            for task, taken in self._running.items():
                if taken.work.name in lost and not task.done():
                    logger.warning("jobs: the lease of %s has ended", taken.work.name)
                    task.cancel()
