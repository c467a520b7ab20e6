"""Accepts, finds, cancels and deletes jobs, and reads their answers."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from graph.errors import ApiError
from graph.jobs.job import Job, KeptAnswer
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Files, Store, Work
from graph.settings import FolderStore, JobsSettings, Limits

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; a relative folder in the settings is inside it on every node."""
MIN_PROGRESS = 0.05
"""Above this progress the time left is estimated from the job, not from its model's speed."""


@dataclass(frozen=True)
class QueuePlace:
    """The place of a job in the queue."""

    position: int
    """The place among the waiting jobs, from 1; 0 where the job does not wait."""
    eta_s: float | None
    """Seconds until the job ends; None where the model's speed is not known."""


def build_name(kind: str, owner: str, key: str | None, number: int = 0) -> str:
    """Return a new name, or the fixed name of an owner's `Idempotency-Key`."""
    if key is None:
        return f"{kind}_{uuid4().hex}"
    whole = "\n".join((owner, key, str(number)))
    return f"{kind}_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def hash_request(body: str, files: Mapping[str, bytes]) -> str:
    """Return the hash of a request's body and files."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return hashlib.sha256(f"{body}\n{sums}".encode()).hexdigest()


class Jobs:
    """Handles jobs, which are kept in a `Store` and in `Files`."""

    def __init__(self, store: Store, files: Files) -> None:
        self.store, self.files = store, files

    async def check_limits(self, owner: str, names: Sequence[str], limits: Limits) -> None:
        """Raise ApiError 429 where too many jobs wait already to add the new ones of `names`."""
        more = [await self.store.get_text(name) for name in names].count(None)
        waiting = await self.store.list_waiting()
        own = sum(work.owner == owner for work in waiting)
        for what, have, most in (
            ("this key has", own, limits.max_jobs_per_key),
            ("there are", len(waiting), limits.max_jobs),
        ):
            if have + more > most:
                message = f"{what} {have} waiting jobs, and {most} are allowed; wait until some end"
                raise ApiError(429, "too_many_jobs", message, headers={"retry-after": "60"})

    async def accept_job(self, job: Job, files: Mapping[str, bytes]) -> Job:
        """Store and queue a job; return it, or the job that has its name already.

        Raises ApiError 422 where the existing job belongs to another request.
        """
        text = await self.store.add_text(job.name, job.model_dump_json(), job.expires)
        kept = Job.model_validate_json(text)
        check_fingerprint(kept.fingerprint, job.fingerprint)
        if kept.status == "queued":  # an earlier replica may have died before it queued the job
            for name, data in files.items():
                await self.files.write_file(job.name, name, data)
            await self.store.put_work(kept.work)
        return kept

    async def load_job(self, name: str) -> Job | None:
        """Return a job or None; its text is rewritten, because `replace_job` compares texts."""
        text = await self.store.get_text(name)
        if text is None:
            return None
        job = Job.model_validate_json(text)
        if (now := job.model_dump_json()) != text:
            await self.store.swap_text(name, text, now, job.expires)
        return job

    async def find_job(self, name: str, owner: str) -> Job:
        """Return a job. Raises ApiError 404 where the owner has no job of this name."""
        job = await self.load_job(name) if name.startswith("job_") else None
        if job is None or job.owner != owner:
            message = f"no job {name!r}: it never existed, has expired, or belongs to another key"
            raise ApiError(404, "job_not_found", message, "id")
        return job

    async def estimate_places(
        self, jobs: Sequence[Job], backlog: Mapping[str, float], speeds: Mapping[str, float]
    ) -> list[QueuePlace]:
        """Return the places of jobs; `speeds` are in row-seconds per second, by model."""
        ahead, before = dict(backlog), {}
        for position, work in enumerate(await self.store.list_waiting(), 1):
            before[work.name] = position, ahead.get(work.model, 0.0)
            ahead[work.model] = ahead.get(work.model, 0.0) + work.row_seconds
        return [_estimate_place(job, *before.get(job.name, (0, 0.0)), speeds) for job in jobs]

    async def cancel_job(self, job: Job, keep_s: float) -> Job:
        """Cancel a job that waits or runs, or delete a job that has ended."""
        while not job.has_ended:
            cancelled = job.with_changes(keep_s, status="cancelled")
            if await self.replace_job(job, cancelled):
                await self.store.withdraw_work(job.work)
                return cancelled
            job = await self.find_job(job.name, job.owner)
        await self.delete_job(job.name)
        return job

    async def replace_job(self, old: Job, new: Job) -> bool:
        """Replace `old` and queue its webhook; return False where the job is not `old` any more."""
        texts = old.model_dump_json(), new.model_dump_json()
        done = await self.store.swap_text(old.name, *texts, new.expires)
        if done and new.webhook and new.status != old.status and new.status != "queued":
            await self.store.put_work(Work("webhook", f"{new.name}.{new.status}", time.time()))
        return done

    async def find_answer(self, job: Job) -> tuple[KeptAnswer, int]:
        """Return the answer of a job, and its size. Raises ApiError 409 where it has none."""
        if job.answer is None:
            reason = job.error.message if job.error else "wait until it has finished"
            raise ApiError(409, f"job_{job.status}", f"the job is {job.status}: {reason}", "id")
        return job.answer, await self.files.measure_file(job.name, job.answer.file)

    async def delete_job(self, name: str) -> None:
        """Delete a job and its files."""
        await self.files.delete_files(name)
        await self.store.delete_text(name)

    async def sweep_expired(self) -> None:
        """Delete everything that has expired, except jobs that have not ended.

        These are queued if they are not: the replica that accepted one may have died too early.
        """
        for name in await self.store.list_expired():
            job = await self.load_job(name) if name.startswith("job_") else None
            if job is None or job.has_ended:
                await self.delete_job(name)
            else:
                await self.store.put_work(job.work)


def _estimate_place(
    job: Job, position: int, ahead: float, speeds: Mapping[str, float]
) -> QueuePlace:
    if job.has_ended:
        return QueuePlace(0, 0.0)
    if job.started is not None and job.progress > MIN_PROGRESS:
        took = time.time() - job.started
        return QueuePlace(position, took * (1 - job.progress) / job.progress)
    speed = speeds.get(job.model)
    return QueuePlace(position, (ahead + job.row_seconds) / speed if speed else None)


def check_fingerprint(kept: str, asked: str) -> None:
    """Raise ApiError 422 where an `Idempotency-Key` was used for another request."""
    if kept != asked:
        message = "this Idempotency-Key was used for another request; use a new one"
        raise ApiError(422, "idempotency_conflict", message, "idempotency-key")


def build_jobs(settings: JobsSettings) -> Jobs:
    """Build jobs with the configured store. Raises ValueError where its password is missing."""
    store = settings.store
    if isinstance(store, FolderStore):
        folder = ROOT / store.folder
        return Jobs(SqliteStore(folder / "jobs.sqlite"), Files(str(folder / "files")))
    from graph.jobs.redis import RedisStore  # streaq is imported only where it is used

    return Jobs(RedisStore(store.url, store.password), Files(store.files))
