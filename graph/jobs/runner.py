"""Works on jobs: makes what they ask for, and tells their webhooks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from api.service import Service
from graph.calls import in_the_name_of
from graph.jobs.run import Run
from graph.jobs.store import Work

SWEEP_S = 10.0
AGAIN_S = 5.0
logger = logging.getLogger("ray.serve")


class Runner:
    """One ingress replica's."""

    def __init__(self, service: Service, at_once: int) -> None:
        self._service, self._at_once = service, at_once
        self._store = service.jobs.store

    async def run(self) -> None:
        """Work until cancelled, once the configuration has brought the limits and the keys."""
        await self._service.configured.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_kept_up(self._sweep))
            if self._at_once:
                tasks.create_task(_kept_up(lambda: self._store.serve(self.handle, self._at_once)))

    async def _sweep(self) -> None:
        await self._service.jobs.sweep()
        self._service.metrics.jobs_waiting(len(await self._store.waiting()))
        await asyncio.sleep(SWEEP_S)

    async def handle(self, work: Work, attempt: int) -> float | None:
        """Do a piece of work; see `Handler`."""
        try:
            return await (self._make if work.kind == "job" else self._tell)(work.name, attempt)
        except Exception:  # of the store, whatever its client raises: no work is lost
            logger.exception("jobs: %s %s is tried again", work.kind, work.name)
            return AGAIN_S

    async def _make(self, name: str, _attempt: int) -> float | None:
        job = await self._service.jobs.load(name)
        return await in_the_name_of(name, Run(self._service, job).to_its_end()) if job else None

    async def _tell(self, name: str, attempt: int) -> float | None:
        of, _, status = name.partition(".")
        job = await self._service.jobs.load(of)
        if job is None or job.webhook is None:
            return None
        return await self._service.webhooks.tell(job, status, job.webhook, attempt)


async def _kept_up(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # whatever the store's client raises, it may come back
            logger.exception("jobs: the store is out of reach; it is tried again")
            await asyncio.sleep(AGAIN_S)
