"""One attempt at a job, from its document to its answer."""

import asyncio
import logging
import time

from api.keys import share_named
from api.schemas.generation import JobBody
from api.service import Service
from deployments.accounts import Share
from graph.cache import Answer
from graph.errors import ApiError, told
from graph.jobs.job import Job, KeptAnswer
from graph.making import charged, made
from graph.order import Order
from graph.ordering import ordered
from graph.pipeline import Progress

LOOK_S = 0.5
"""How often progress is noted, and whether the job was cancelled."""
MOST_ATTEMPTS = 3
PATIENCE_S = 5.0
"""Jobs let others wait no longer: who is at the other end of a connection comes first."""
AGAIN_S = 5.0
logger = logging.getLogger("ray.serve")


class Run:
    """Changes a job only while nobody else has: who is too late, or was cancelled, stops."""

    def __init__(self, service: Service, job: Job) -> None:
        self._service, self._jobs, self._job = service, service.jobs, job
        self._done: dict[int, float] = {}

    async def to_its_end(self) -> float | None:
        """Make what the job asks for. Returns None, or the seconds after which to try again."""
        if self._job.has_ended:
            return None
        try:
            await self._make()
        except ApiError as error:
            if error.status == 429:
                return float((error.headers or {}).get("retry-after", AGAIN_S))
            if error.status == 503 and self._job.attempts < MOST_ATTEMPTS:
                await self._change(status="queued", started=None, progress=0.0)
                return AGAIN_S
            await self._change(status="failed", error=told(error))
        except Exception as error:  # whatever it is, the job's user is told
            logger.exception("%s failed", self._job.name)
            await self._change(status="failed", error=told(error))
        return None

    async def _make(self) -> None:
        if self._job.attempts >= MOST_ATTEMPTS:
            message = f"the server ended {self._job.attempts} times while it worked on this job"
            raise ApiError(500, "generation_failed", message)
        share = share_named(self._job.owner, self._service.limits.keys)
        order = await self._order(share)
        async with charged(self._service, order, PATIENCE_S):
            begun = {"started": time.time(), "attempts": self._job.attempts + 1, "progress": 0.0}
            if await self._change(status="running", **begun) and (answer := await self._run(order)):
                await self._keep(answer)

    async def _order(self, share: Share) -> Order:
        body = JobBody.model_validate_json(self._job.body)
        files = {
            name: await self._jobs.files.get(self._job.name, name) for name in self._job.uploads
        }
        return await ordered(self._service, share, time.perf_counter(), body, files)

    async def _run(self, order: Order) -> Answer | None:
        """Return the answer, or None where the job is no longer ours."""

        def came(number: int, progress: Progress) -> None:
            if progress.stage == "generate":
                self._done[number] = progress.done / progress.total

        making = asyncio.create_task(made(self._service, order, came))
        try:
            while not making.done():
                await asyncio.wait({making}, timeout=LOOK_S)
                if not await self._note(sum(self._done.values()) / len(order.clips)):
                    return None
            return making.result()
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _note(self, progress: float) -> bool:
        if progress != self._job.progress:
            return await self._change(progress=progress)
        return await self._jobs.store.get(self._job.name) == self._job.model_dump_json()

    async def _keep(self, answer: Answer) -> None:
        file = f"answer-{self._job.attempts}"
        await self._jobs.files.put(self._job.name, file, answer.body)
        kept = KeptAnswer(file=file, media_type=answer.media_type, headers=answer.headers)
        await self._change(status="finished", progress=1.0, answer=kept)

    async def _change(self, **changes: object) -> bool:
        new = self._job.changed(self._service.limits.keep_jobs_s, **changes)
        done = await self._jobs.change(self._job, new)
        if done:
            self._job = new
            if new.has_ended:
                self._service.metrics.job(new.model, new.status)
        return done
