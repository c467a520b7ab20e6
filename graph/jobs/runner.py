"""Works on jobs: runs their tasks, keeps their answers, and delivers their webhooks."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TypeVar

from graph.calls import run_named
from graph.errors import ApiError, build_error_detail, describe_error
from graph.execution import Executor, Render
from graph.jobs import webhooks
from graph.jobs.job import Job
from graph.jobs.jobs import Jobs
from graph.jobs.store import StoreUnavailable, Work
from graph.jobs.webhooks import Webhooks
from graph.jobs.work_queue import WorkQueue
from graph.metrics import Metrics
from graph.tasks.task import Progress, Result, Task

SWEEP_S = 10.0
RETRY_S = 5.0
LOOK_S = 0.5
"""Seconds between two writes of the progress, and two checks whether the job was cancelled."""
KEEP_TRYING_S = 20.0
"""Seconds for which an answer is held while it cannot be stored."""
STORE_AWAY_S = 30.0
"""Seconds after these until the job is made again."""
MAX_ATTEMPTS = 3
PATIENCE_S = 5.0
"""Seconds of other work that a new job may wait for; clients that stay connected come first."""
T = TypeVar("T")
logger = logging.getLogger("ray.serve")
BuildTask = Callable[[Job, Mapping[str, bytes]], Awaitable[tuple[Task, Render, int]]]
"""Builds a job's task from the job and its uploads; returns it, what renders its result, and the
bytes that it needs. Raises ApiError, 401 where its owner's key has been removed."""


class Runner:
    """Works on the jobs of one ingress replica."""

    def __init__(
        self,
        jobs: Jobs,
        hooks: Webhooks,
        executor: Executor,
        metrics: Metrics,
        keep_s: Callable[[], float],
        build_task: BuildTask,
    ) -> None:
        self._jobs, self._webhooks = jobs, hooks
        self._executor, self._metrics = executor, metrics
        self._keep_s, self._build_task = keep_s, build_task

    async def run_jobs(self, configured: asyncio.Event, at_once: int) -> None:
        """Work on `at_once` jobs and on webhooks until cancelled.

        The work begins once limits and keys are configured.
        """
        await configured.wait()
        store = self._jobs.store
        jobs = WorkQueue(store, "job", self.handle_work, at_once, at_once, pauses_lanes=True)
        most, most_of_one = webhooks.AT_ONCE, webhooks.AT_ONCE_FOR_A_RECEIVER
        events = WorkQueue(
            store, "webhook", self.handle_work, most, most_of_one, pauses_lanes=False
        )
        async with asyncio.TaskGroup() as tasks:
            for work in (self._sweep_store, jobs.serve_work, events.serve_work):
                tasks.create_task(_keep_running(work))

    async def _sweep_store(self) -> None:
        await self._jobs.sweep_expired()
        self._metrics.set_waiting_jobs(await self._jobs.store.count_waiting("job"))
        await asyncio.sleep(SWEEP_S)

    async def handle_work(self, work: Work, attempt: int) -> float | None:
        """Do a piece of work as a `Handler`."""
        try:
            if work.kind == "job":
                return await self._run_job(work.name)
            return await self._deliver_webhook(work.name, attempt)
        except Exception:  # after any error of the store's client, no work is lost
            logger.exception("jobs: %s %s is tried again", work.kind, work.name)
            return RETRY_S

    async def _run_job(self, name: str) -> float | None:
        job = await self._jobs.load_job(name)
        return await run_named(name, Attempt(self, job).run_job()) if job else None

    async def _deliver_webhook(self, name: str, attempt: int) -> float | None:
        job_name, _, status = name.partition(".")
        job = await self._jobs.load_job(job_name)
        return await self._webhooks.send_event(job, status, attempt) if job else None


class Attempt:
    """One attempt at a job, from its document to its answer.

    It changes the job only while nobody else has changed it, and stops otherwise: it comes too
    late, or the job was cancelled.
    """

    def __init__(self, runner: Runner, job: Job) -> None:
        self._runner, self._jobs, self._job = runner, runner._jobs, job
        self._attempts_before, self._progress = job.attempts, 0.0

    async def run_job(self) -> float | None:
        """Run the job. Returns None, or the seconds after which to try again."""
        if self._job.has_ended:
            return None
        try:
            await self._run_task()
        except ApiError as error:
            return await self._handle_failure(error)
        except Exception as error:  # the job's user reads every error
            logger.exception("%s failed", self._job.name)
            return await self._handle_failure(describe_error(error))
        return None

    async def _handle_failure(self, error: ApiError) -> float | None:
        if error.status == 429:  # as the job waits longer, it may be let in earlier
            return min(float((error.headers or {}).get("retry-after", RETRY_S)), RETRY_S)
        if isinstance(error, StoreUnavailable):
            return await self._give_back()
        if error.status == 503 and self._job.attempts < MAX_ATTEMPTS:
            await self._change_job(status="queued", started=None, progress=0.0)
            return RETRY_S
        await self._change_job(status="failed", error=build_error_detail(error))
        return None

    async def _give_back(self) -> float:
        """Queue the job as if this attempt had not been; wait for the store where it is away."""
        while True:
            try:
                await self._change_job(
                    status="queued", started=None, progress=0.0, attempts=self._attempts_before
                )
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                return STORE_AWAY_S

    async def _run_task(self) -> None:
        if self._job.attempts >= MAX_ATTEMPTS:
            message = f"the server ended {self._job.attempts} times while it worked on this job"
            raise ApiError(500, "generation_failed", message)
        job, files = self._job, self._jobs.files
        try:
            uploads = {name: await files.read_file(job.name, name) for name in job.uploads}
        except FileNotFoundError as error:
            message = "an uploaded file of this job is not in the store any more; send it again"
            raise ApiError(500, "generation_failed", message) from error
        task, render, size = await self._runner._build_task(self._job, uploads)
        with self._runner._executor.held_bytes.hold_bytes(size):
            await self._run_held(task, render)

    async def _run_held(self, task: Task, render: Render) -> None:
        """Run the task, whose bytes are counted, and keep its answer."""
        admitted = asyncio.Event()
        running = asyncio.create_task(self._read_result(task, admitted))
        try:
            await _wait_for_either(admitted, running)
            if running.done() and running.exception():
                running.result()
            start = {"started": time.time(), "attempts": self._job.attempts + 1, "progress": 0.0}
            if not await self._change_job(status="running", **start):
                return
            while not running.done():
                await asyncio.wait({running}, timeout=LOOK_S)
                with suppress(StoreUnavailable):  # it may be back before the job ends
                    if not await self._write_progress():
                        return
            await self._keep_answer(render, running.result())
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _read_result(self, task: Task, admitted: asyncio.Event) -> Result:
        """Run the task to its end, and keep its progress."""
        # A job grows older until what is before it takes less time than the job has waited.
        patience_s = max(PATIENCE_S, time.time() - self._job.created)
        events = self._runner._executor.stream_events(task, patience_s, admitted)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Progress):
                    self._progress = event.progress
        assert isinstance(event, Result)
        return event

    async def _write_progress(self) -> bool:
        """Write the progress; return whether the job is still this attempt's."""
        if self._progress != self._job.progress:
            return await self._change_job(progress=self._progress)
        return await self._jobs.store.get_text(self._job.name) == self._job.model_dump_json()

    async def _keep_answer(self, render: Render, result: Result) -> None:
        name = self._job.name
        kept = await _keep_trying(lambda: self._jobs.write_answer(name, lambda: render(result)))
        end = {"status": "finished", "progress": 1.0, "answer": kept}
        finished = await _keep_trying(lambda: self._change_job(**end))
        if not finished and await self._jobs.store.get_text(name) is None:
            await self._jobs.files.delete_files(name)  # the job was deleted meanwhile

    async def _change_job(self, **changes: object) -> bool:
        new = self._job.with_changes(self._runner._keep_s(), **changes)
        done = await self._jobs.replace_job(self._job, new)
        if done:
            self._job = new
            if new.has_ended:
                self._runner._metrics.count_job(new.model, new.status)
        return done


async def _keep_trying(work: Callable[[], Awaitable[T]]) -> T:
    """Return what `work` returns. Raises StoreUnavailable where it fails for `KEEP_TRYING_S`."""
    end = time.monotonic() + KEEP_TRYING_S
    while True:
        try:
            return await work()
        except StoreUnavailable:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(LOOK_S)


async def _wait_for_either(event: asyncio.Event, task: asyncio.Task[Result]) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _keep_running(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # after any error of the store's client, it may come back
            logger.exception("jobs: the store cannot be reached; it is tried again")
            await asyncio.sleep(RETRY_S)
