"""What an ingress replica tells the ledger, and asks it; also beats, which keep its word alive."""

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from deployments.accounts import LEASE_S, Charge, Snapshot
from graph.calls import Method, call, start_detached

TIMEOUT_S = 1.0
BEAT_S = LEASE_S / 3
logger = logging.getLogger("ray.serve")


class LedgerClient:
    """The ledger, as one ingress replica has it: by a name of its own, with its open charges."""

    def __init__(self, methods: Any) -> None:
        self.methods = methods
        self.name = uuid4().hex
        self.open: dict[str, Charge] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None

    async def tell(self, method: Method, *args: Any) -> Any:
        """Call the ledger; return None where it is out of reach, whatever the reason."""
        self._keep_beating()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await call(method, *args)
        except Exception as error:  # noqa: BLE001 - what counts requests must not fail them
            logger.warning("the ledger is out of reach (%r); each ingress holds to itself", error)
            return None

    async def wait_for(self, method: Method, *args: Any) -> Any:
        """Call a method that may take its time, likewise."""
        try:
            return await call(method, *args)
        except Exception as error:  # noqa: BLE001 - see `tell`
            logger.warning("the ledger ended (%r) while a request waited for another's", error)
            return None

    def call_later(self, telling: Coroutine[Any, Any, None]) -> None:
        """Do it without waiting: also while a request is being cancelled."""
        task = start_detached(telling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_for_calls(self) -> None:
        """Wait until all that was to be done later is."""
        await asyncio.gather(*self._tasks)

    async def snapshot(self) -> Snapshot:
        """Return what all ingresses have outstanding.

        Raises ApiError 503 where the ledger is out of reach.
        """
        told: Snapshot = await call(self.methods.snapshot)
        return told

    def _keep_beating(self) -> None:
        if self._beating is None or self._beating.done():
            nobody = contextvars.Context()  # it is of no request, and outlives this one
            self._beating = asyncio.create_task(self._beat(), context=nobody)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self.tell(self.methods.beat, self.name, dict(self.open))

    async def close(self) -> None:
        """End what runs beside requests."""
        tasks = [task for task in (self._beating, *self._tasks) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
