"""What is known of a job: one document, replaced whole whenever something changes."""

import time
from typing import Literal, Self

from pydantic import BaseModel

from graph.errors import ErrorDetail
from graph.jobs.store import Work

Status = Literal["queued", "running", "finished", "failed", "cancelled"]
ENDED = ("finished", "failed", "cancelled")


class KeptAnswer(BaseModel):
    """An answer whose body lies among the files."""

    file: str
    media_type: str
    headers: dict[str, str]


class Job(BaseModel):
    """A generation that nobody waits for at the other end of a connection."""

    name: str
    owner: str
    """The name of the API key that asked for it."""
    fingerprint: str
    """Of what was asked for: the same `Idempotency-Key` shall not mean two things."""
    body: str
    """The request, as JSON, its seed drawn: done again, it gives the same."""
    uploads: list[str]
    webhook: str | None
    model: str
    seed: int
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
        """What is queued of it."""
        return Work("job", self.name, self.created, self.owner, self.model, self.row_seconds)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ENDED

    def changed(self, keep_s: float, **changes: object) -> Self:
        """Return the job after a change; from then it is kept for so long."""
        now = time.time()
        if changes.get("status") in ENDED:
            changes["ended"] = now
        return self.model_copy(update={"expires": now + keep_s, **changes})
