"""/v1/jobs: generations that nobody waits for at the other end of a connection."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from api.quality import tiered
from api.routes.answers import ERRORS, FILES, HEADERS, UPLOAD_ERRORS, Answers
from api.routes.bodies import (
    IDEMPOTENCY,
    GenerationsRoute,
    idempotency_key,
    is_form,
    json_or_form,
    json_schema,
    read_body,
)
from api.schemas.generation import JobBody
from api.service import Served, Service
from graph.errors import ApiError, ErrorBody, ErrorDetail
from graph.jobs.job import Job, Status
from graph.jobs.jobs import fingerprint, name_of
from graph.making import GenerationsAnswer
from graph.ordering import ordered

JobId = Annotated[str, Path(description="As `POST /v1/jobs` answered it.")]
BODIES = TypeAdapter(list[JobBody])


class JobAnswer(BaseModel):
    """A job, as it is now. Times are Unix seconds."""

    id: str
    status: Status
    model: str
    seed: int
    position: int = Field(description="Among the jobs that wait, from 1; 0: it waits no longer.")
    eta_seconds: float | None = Field(
        description="Until it has ended, from measured speed; null: not known now."
    )
    progress: float = Field(description="From 0 to 1.")
    created: float
    started: float | None
    ended: float | None
    expires: float = Field(
        description="Then it is deleted, and its audio, unless something changes."
    )
    audio: str | None = Field(description="Where its audio is, once it has finished.")
    error: ErrorDetail | None


class JobsAnswer(BaseModel):
    """Jobs, in the order in which they were asked for."""

    jobs: list[JobAnswer]


ONE_OR_MORE = {
    "title": "JobsBody",
    "oneOf": [
        json_schema(JobBody),
        {"type": "array", "minItems": 1, "items": json_schema(JobBody)},
    ],
}
LISTED = [{"prompt": "calm piano", "duration": 1}, {"prompt": "slow jazz", "duration": 1}]
BODY: dict[str, Any] = {
    "parameters": [IDEMPOTENCY],
    "requestBody": json_or_form(JobBody, ONE_OR_MORE, several_jobs=LISTED),
}
LINKS = {
    "get_job": "How far it is.",
    "get_job_audio": "What it made, once it has.",
    "delete_job": "Not to make it, or not to keep it.",
}
ACCEPTED: Answers = {
    202: {
        "description": "Accepted; of a list, all of them, or none where one cannot be.",
        "headers": {"location": {"description": "The job.", "schema": {"type": "string"}}},
        "links": {
            name: {
                "description": what,
                "operationId": name,
                "parameters": {"job_id": "$response.body#/id"},
            }
            for name, what in LINKS.items()
        },
    },
    **UPLOAD_ERRORS,
}
UNKNOWN: Answers = {
    401: ERRORS[401],
    404: {"model": ErrorBody, "description": "No such job, or it has expired."},
    503: {"model": ErrorBody, "description": "What keeps jobs cannot be reached."},
}
AUDIO: Answers = {
    200: {
        "description": "As the generation answers.",
        "content": dict(FILES),
        "model": GenerationsAnswer,
        "headers": HEADERS,
    },
    409: {"model": ErrorBody, "description": "It has not finished, or never will."},
    **UNKNOWN,
}

posting = APIRouter(tags=["jobs"], route_class=GenerationsRoute)
looking = APIRouter(tags=["jobs"])


@posting.post("/v1/jobs", status_code=202, responses=ACCEPTED, openapi_extra=BODY)
async def create_jobs(
    request: Request, response: Response, service: Served
) -> JobAnswer | JobsAnswer:
    """Accept generations to be made when there is time; answers at once."""
    bodies, files, listed = await _bodies(request)
    owner, key = request.state.share.name, idempotency_key(request)
    jobs = []
    for number, body in enumerate(bodies):
        job = await _job(request, service, body, files)
        jobs.append(job.model_copy(update={"name": name_of("job", owner, key, number)}))
    await service.jobs.check_room(owner, [job.name for job in jobs], service.limits)
    views = await _views(service, [await service.jobs.accept(job, files) for job in jobs])
    if listed:
        return JobsAnswer(jobs=views)
    response.headers["location"] = f"/v1/jobs/{views[0].id}"
    return views[0]


@looking.get("/v1/jobs/{job_id}", responses=UNKNOWN)
async def get_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Say how far a job is."""
    job = await service.jobs.get(job_id, request.state.share.name)
    return (await _views(service, [job]))[0]


@looking.delete("/v1/jobs/{job_id}", responses=UNKNOWN)
async def delete_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Cancel a job that waits or runs; delete one that has ended, with its audio."""
    job = await service.jobs.get(job_id, request.state.share.name)
    cancelled = await service.jobs.cancel(job, service.limits.keep_jobs_s)
    return (await _views(service, [cancelled]))[0]


@looking.get("/v1/jobs/{job_id}/audio", response_class=Response, responses=AUDIO)
async def get_job_audio(request: Request, job_id: JobId, service: Served) -> Response:
    """Return what a job made: a file, or JSON with several."""
    job = await service.jobs.get(job_id, request.state.share.name)
    made = await service.jobs.answer(job)
    return Response(made.body, media_type=made.media_type, headers=made.headers)


async def _bodies(request: Request) -> tuple[list[JobBody], dict[str, bytes], bool]:
    """Return the bodies, the files beside the only one, and whether they came as a list."""
    if is_form(request) or not (await request.body()).lstrip().startswith(b"["):
        body, files = await read_body(request, JobBody)
        return [body], files, False
    try:
        bodies = BODIES.validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    if not bodies:
        raise ApiError(422, "invalid_value", "the list is empty; send one generation or more")
    return bodies, {}, True


async def _job(
    request: Request, service: Service, body: JobBody, files: Mapping[str, bytes]
) -> Job:
    """Return a job whose every part can be had. Raises ApiError where one cannot."""
    share, now = request.state.share, time.time()
    if body.webhook:
        service.webhooks.check(body.webhook)
    wanted = await tiered(service, body, files)
    order = await ordered(service, share, request.state.began, wanted, files)
    request.state.model = order.voice.model.name
    asked = body.model_dump_json(exclude_unset=True)
    return Job(
        name="",
        owner=share.name,
        fingerprint=await asyncio.to_thread(fingerprint, asked, files),
        body=wanted.model_copy(update={"seed": order.seed}).model_dump_json(exclude_unset=True),
        uploads=list(files),
        webhook=body.webhook,
        model=order.voice.model.name,
        seed=order.seed,
        row_seconds=order.row_seconds,
        created=now,
        expires=now + service.limits.keep_jobs_s,
    )


async def _views(service: Service, jobs: list[Job]) -> list[JobAnswer]:
    try:
        told = await service.ledger.snapshot()
        backlog, speeds = told.row_seconds, told.speeds
    except ApiError:  # the ledger is out of reach: nobody knows how fast models are
        backlog, speeds = {}, {}
    places = await service.jobs.places(jobs, backlog, speeds)
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
    "status", "model", "seed", "progress", "created", "started", "ended", "expires", "error",
}  # fmt: skip
