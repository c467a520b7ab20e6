"""What the routes of jobs answer: jobs, and pages of them."""

import math

from pydantic import BaseModel, Field

from api.service import Service
from deployments.accounts import Snapshot
from graph.errors import ApiError, ErrorDetail
from graph.jobs.job import Job, Status

NEWEST = (math.inf, "")
"""What all jobs are older than."""


class JobAnswer(BaseModel):
    """The current state of a job. Times are in Unix seconds."""

    id: str
    type: str = Field(description="The type of the task.")
    status: Status
    model: str
    seed: int | None = Field(description="The seed; null for tasks without random sampling.")
    position: int = Field(description="The place in the queue, from 1; 0 if it does not wait.")
    eta_seconds: float | None = Field(
        description="The estimated seconds until the job ends; null if unknown."
    )
    progress: float = Field(description="The progress from 0 to 1.")
    created: float
    started: float | None
    ended: float | None
    expires: float = Field(
        description="When the job and its audio are deleted, unless the job changes before."
    )
    audio: str | None = Field(description="The path of the audio of a finished job.")
    error: ErrorDetail | None


class JobsAnswer(BaseModel):
    """Jobs, in the order of the request."""

    jobs: list[JobAnswer]


class JobsPage(BaseModel):
    """A page of an API key's jobs, the newest first."""

    jobs: list[JobAnswer]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one. A page with a "
        "filter may have fewer jobs than `limit` although more follow."
    )


async def describe_jobs(service: Service, jobs: list[Job], snapshot: Snapshot) -> list[JobAnswer]:
    """Describe jobs to their owner, with their places in the queue."""
    backlog, speeds = snapshot.row_seconds, snapshot.speeds
    places = await service.jobs.estimate_places(jobs, backlog, speeds)
    return [
        JobAnswer(
            id=job.name,
            position=place.position,
            eta_seconds=place.eta_s,
            audio=f"/v1/jobs/{job.name}/audio" if job.answer else None,
            **job.model_dump(include=SHOWN),
        )
        for job, place in zip(jobs, places, strict=True)
    ]


SHOWN = {
    "type", "status", "model", "seed", "progress", "created", "started", "ended", "expires",
    "error",
}  # fmt: skip


def write_cursor(job: Job) -> str:
    """Return what stands for a job as the last one of a page."""
    return f"{job.created!r}-{job.name}"


def read_cursor(cursor: str) -> tuple[float, str]:
    """Return the time and the name of a job. Raises ApiError 422."""
    created, _, name = cursor.partition("-")
    try:
        return float(created), name
    except ValueError as error:
        message = "cursor: not a next_cursor of this list; leave it out to begin with the newest"
        raise ApiError(422, "invalid_value", message, "cursor") from error
