"""The document of a job, which every change replaces as a whole."""

import time
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel

from graph.errors import ErrorDetail
from graph.jobs.store import Work

Status = Literal["queued", "running", "finished", "failed", "cancelled"]
ENDED = ("finished", "failed", "cancelled")


class KeptAnswer(BaseModel):
    """An answer whose body is in the file store."""

    file: str
    media_type: str
    headers: dict[str, str]


class Job(BaseModel):
    """A task whose client does not stay connected."""

    name: str
    type: str = "generation"
    """The kind of task, by its name in `POST /v1/jobs`."""
    owner: str
    """The name of the API key that created the job."""
    fingerprint: str
    """The hash of the request, by which a repeated `Idempotency-Key` is checked."""
    body: str
    """The request as JSON, with the seed that was drawn: a second run makes the same audio."""
    uploads: list[str]
    webhook: str | None
    model: str
    seed: int | None
    """The seed of the task; None where it draws no random numbers."""
    row_seconds: float
    weight: float = 1.0
    """The weight of the owner when it created the job."""
    created: float
    """The time of creation in Unix seconds, the unit of all times of a job."""
    expires: float
    status: Status = "queued"
    attempts: int = 0
    progress: float = 0.0
    """The share of the work that is done, from 0 to 1."""
    started: float | None = None
    ended: float | None = None
    answer: KeptAnswer | None = None
    error: ErrorDetail | None = None

    @property
    def work(self) -> Work:
        """The entry of the job in the queue."""
        price, weight = self.row_seconds, self.weight
        return Work("job", self.name, self.created, self.owner, self.model, price, weight)

    @property
    def event(self) -> Work | None:
        """The delivery of the job's webhook at its present status, if it has one."""
        if not self.webhook or self.status == "queued":
            return None
        receiver = urlsplit(self.webhook).netloc
        return Work("webhook", f"{self.name}.{self.status}", time.time(), self.owner, receiver)

    @property
    def has_ended(self) -> bool:
        """Whether the job has finished, failed or been cancelled."""
        return self.status in ENDED

    def with_changes(self, keep_s: float, **changes: object) -> Self:
        """Return a changed copy of the job, which expires `keep_s` seconds from now."""
        now = time.time()
        if changes.get("status") in ENDED:
            changes["ended"] = now
        return self.model_copy(update={"expires": now + keep_s, **changes})
