"""Accepts, finds, cancels and deletes jobs, and reads their answers."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from graph.cache import AnswerParts
from graph.errors import ApiError
from graph.jobs.database import open_database
from graph.jobs.job import Job, KeptAnswer
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Files, NewJob, Place, Store
from graph.settings import FolderStore, JobsSettings, Limits

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; a relative folder in the settings is inside it on every node."""
MIN_PROGRESS = 0.05
"""Above this progress the time left is estimated from the job, not from its model's speed."""
PAGE, MOST_READ = 100, 1000
"""How many jobs are read at once, and in all, to find those that fit a filter."""


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

    async def check_limits(self, owner: str, name: str, jobs: int, limits: Limits) -> None:
        """Raise ApiError 429 where too many jobs wait already to add `jobs` more.

        `name` is that of the first: where it is stored, the jobs were accepted before.
        """
        if jobs <= limits.max_jobs_per_key and await self.store.get_text(name):
            return
        for what, key, most in (
            ("this key has", owner, limits.max_jobs_per_key),
            ("there are", None, limits.max_jobs),
        ):
            have = await self.store.count_waiting("job", key)
            if have + jobs > most:
                message = f"{what} {have} waiting jobs, and {most} are allowed; wait until some end"
                raise ApiError(429, "too_many_jobs", message, headers={"retry-after": "60"})

    async def accept_jobs(self, jobs: Sequence[Job], files: Mapping[str, bytes]) -> list[Job]:
        """Store and queue all jobs, or none; return them, or those that have their names already.

        Raises ApiError 422 where an existing job belongs to another request.
        """
        if text := await self.store.get_text(jobs[0].name):
            check_fingerprint(Job.model_validate_json(text).fingerprint, jobs[0].fingerprint)
        else:
            for name, data in files.items():
                await self.files.write_file(jobs[0].name, name, data)
        new = [NewJob(job.model_dump_json(), job.expires, job.work) for job in jobs]
        kept = [Job.model_validate_json(text) for text in await self.store.add_jobs(new)]
        for found, job in zip(kept, jobs, strict=True):
            check_fingerprint(found.fingerprint, job.fingerprint)
        return kept

    async def load_job(self, name: str) -> Job | None:
        """Return a job or None; its text is rewritten, because `replace_job` compares texts."""
        text = await self.store.get_text(name) if name.startswith("job_") else None
        if text is None:
            return None
        job = Job.model_validate_json(text)
        if (now := job.model_dump_json()) != text:
            await self.store.swap_text(name, text, now, job.expires)
        return job

    async def find_job(self, name: str, owner: str) -> Job:
        """Return a job. Raises ApiError 404 where the owner has no job of this name."""
        job = await self.load_job(name)
        if job is None or job.owner != owner:
            message = f"no job {name!r}: it never existed, has expired, or belongs to another key"
            raise ApiError(404, "job_not_found", message, "id")
        return job

    async def list_jobs(
        self, owner: str, before: tuple[float, str], most: int, fits: Callable[[Job], bool]
    ) -> tuple[list[Job], Job | None]:
        """Return an owner's jobs that fit, the newest first, and the last one that was read.

        `before` has the time and the name of the last job of the page before. Where no job follows
        the page, no last one is returned. At most `MOST_READ` jobs are read for one page, so
        that a page may be short and others follow.
        """
        found: list[Job] = []
        for _ in range(MOST_READ // PAGE):
            texts = await self.store.list_texts(owner, before, PAGE)
            for job in map(Job.model_validate_json, texts):
                if fits(job):
                    if len(found) == most:
                        return found, found[-1]
                    found.append(job)
            if len(texts) < PAGE:
                return found, None
            before = job.created, job.name
        return found, job

    async def estimate_places(
        self, jobs: Sequence[Job], backlog: Mapping[str, float], speeds: Mapping[str, float]
    ) -> list[QueuePlace]:
        """Return the places of jobs; `speeds` are in row-seconds per second, by model."""
        waiting = [job.name for job in jobs if not job.has_ended]
        places = await self.store.find_places("job", waiting) if waiting else {}
        return [_estimate_place(job, places.get(job.name), backlog, speeds) for job in jobs]

    async def cancel_job(self, job: Job, keep_s: float) -> Job:
        """Cancel a job that waits or runs; return the job, which may have ended before."""
        while not job.has_ended:
            cancelled = job.with_changes(keep_s, status="cancelled")
            if await self.replace_job(job, cancelled):
                await self.store.withdraw_work("job", job.name)
                return cancelled
            job = await self.load_job(job.name) or cancelled
        return job

    async def replace_job(self, old: Job, new: Job) -> bool:
        """Replace `old` and queue its webhook; return False where the job is not `old` any more."""
        texts = old.model_dump_json(), new.model_dump_json()
        event = new.event if new.status != old.status else None
        return await self.store.swap_text(old.name, *texts, new.expires, event)

    async def find_answer(self, job: Job) -> tuple[KeptAnswer, int]:
        """Return the answer of a job, and its size. Raises ApiError 409 where it has none."""
        if job.answer is None:
            reason = job.error.message if job.error else "wait until it has finished"
            raise ApiError(409, f"job_{job.status}", f"the job is {job.status}: {reason}", "id")
        try:
            size = await self.files.measure_file(job.name, job.answer.file)
        except FileNotFoundError as error:
            message = f"the audio of {job.name!r} is not in the store any more; make it again"
            raise ApiError(404, "job_not_found", message, "id") from error
        return job.answer, size

    async def write_answer(self, name: str, render: Callable[[], AnswerParts]) -> KeptAnswer:
        """Write an answer part by part; each attempt renders it, since parts are read once."""
        file, rendered = f"answer-{uuid4().hex}", list[AnswerParts]()

        def read_parts() -> Iterable[bytes]:
            rendered[:] = [render()]
            return rendered[0].parts

        await self.files.write_parts(name, file, read_parts)
        (answer,) = rendered
        return KeptAnswer(file=file, media_type=answer.media_type, headers=answer.headers)

    async def delete_job(self, name: str) -> None:
        """Delete a job and its files."""
        await self.files.delete_files(name)
        await self.store.delete_text(name)

    async def sweep_expired(self) -> None:
        """Delete everything that has expired, except jobs that have not ended.

        These are queued if they are not: the replica that accepted one may have died too early.
        """
        for name in await self.store.list_expired():
            job = await self.load_job(name)
            if job is None or job.has_ended:
                await self.delete_job(name)
            else:
                await self.store.put_work(job.work)


def _estimate_place(
    job: Job, place: Place | None, backlog: Mapping[str, float], speeds: Mapping[str, float]
) -> QueuePlace:
    """Estimate when a job ends, as if the waiting jobs of its model were spread evenly."""
    if job.has_ended:
        return QueuePlace(0, 0.0)
    position = place.position if place else 0
    if job.started is not None and job.progress > MIN_PROGRESS:
        took = time.time() - job.started
        return QueuePlace(position, took * (1 - job.progress) / job.progress)
    ahead = place.price * place.position / place.waiting if place else job.row_seconds
    speed = speeds.get(job.model)
    return QueuePlace(position, (backlog.get(job.model, 0.0) + ahead) / speed if speed else None)


def check_fingerprint(kept: str, asked: str) -> None:
    """Raise ApiError 422 where an `Idempotency-Key` was used for another request."""
    if kept != asked:
        message = "this Idempotency-Key was used for another request; use a new one"
        raise ApiError(422, "idempotency_conflict", message, "idempotency-key")


def build_jobs(settings: JobsSettings) -> Jobs:
    """Build jobs with the configured store. Raises ValueError where its password is missing."""
    store = settings.store
    if isinstance(store, FolderStore):
        database = SqliteStore(_find_database(store), store.replace_damaged)
        return Jobs(database, Files(str(ROOT / store.folder / "files")))
    from graph.jobs.redis import RedisStore  # coredis is imported only where it is used

    return Jobs(RedisStore(store), Files(store.files))


def check_store(settings: JobsSettings) -> None:
    """Check the store before a start. Raises ValueError, or OSError where its file is damaged."""
    build_jobs(settings)
    if isinstance(settings.store, FolderStore):
        open_database(_find_database(settings.store), settings.store.replace_damaged).close()


def _find_database(store: FolderStore) -> Path:
    return ROOT / store.folder / "jobs.sqlite"
