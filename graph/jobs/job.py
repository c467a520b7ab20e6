"""A job's document; every change replaces it whole."""

import time
from typing import Literal, Self

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
    """What kind of task it is, as `POST /v1/jobs` names it."""
    owner: str
    """The name of the API key that asked for it."""
    fingerprint: str
    """The hash of the request: one `Idempotency-Key` must not mean two requests."""
    body: str
    """The request as JSON, with its seed drawn, so that a second run gives the same audio."""
    uploads: list[str]
    webhook: str | None
    model: str
    seed: int | None
    """None where the task draws nothing."""
    row_seconds: float
    created: float
    """Unix seconds, as all times here."""
    expires: float
    status: Status = "queued"
    attempts: int = 0
    progress: float = 0.0
    """From 0 to 1."""
    started: float | None = None
    ended: float | None = None
    answer: KeptAnswer | None = None
    error: ErrorDetail | None = None

    @property
    def work(self) -> Work:
        """The job as work for the queue."""
        return Work("job", self.name, self.created, self.owner, self.model, self.row_seconds)

    @property
    def has_ended(self) -> bool:
        """Whether it has finished, failed or been cancelled."""
        return self.status in ENDED

    def with_changes(self, keep_s: float, **changes: object) -> Self:
        """Return the job after a change; it is kept for `keep_s` seconds from now."""
        now = time.time()
        if changes.get("status") in ENDED:
            changes["ended"] = now
        return self.model_copy(update={"expires": now + keep_s, **changes})
