"""/v1/jobs: tasks whose clients do not stay connected."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from api.errors import ErrorBody
from api.respond.clips import GenerationsAnswer
from api.respond.files import AnalyzeAnswer, CodesAnswer
from api.respond.responses import read_idempotency_key
from api.respond.workflows import WorkflowAnswer
from api.routes.bodies import (
    JsonOrFormRoute,
    build_caller,
    build_json_schema,
    describe_json_or_form,
    is_form,
    read_form,
    validate_form,
)
from api.routes.documentation import ERRORS, FILES, HEADERS, IDEMPOTENCY, UPLOAD_ERRORS, Answers
from api.schemas.jobs import (
    DEFAULT_TYPE,
    JOB_BODIES,
    JSON_TYPES,
    ONE_JOB,
    SEVERAL_JOBS,
    GenerationJob,
)
from api.schemas.jobs import Job as AnyBody
from api.service import Served, Service
from api.tasks.task_table import TASK_TYPES, TypeName, build_task
from graph.errors import ApiError, ErrorDetail
from graph.jobs.job import Job, Status
from graph.jobs.jobs import build_name, hash_request

JobId = Annotated[str, Path(description="As `POST /v1/jobs` answered it.")]


def _describe_body(name: str) -> dict[str, Any]:
    if name == DEFAULT_TYPE:
        return build_json_schema(JOB_BODIES[name])
    # The parts of bodies are among the document's components, from the routes of workflows.
    schema = JOB_BODIES[name].model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


class JobAnswer(BaseModel):
    """A job, as it is now. Times are Unix seconds."""

    id: str
    type: str = Field(description="The kind of task.")
    status: Status
    model: str
    seed: int | None = Field(description="Null where the task draws nothing.")
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
        {"anyOf": [_describe_body(name) for name in JSON_TYPES]},
        {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_describe_body(name) for name in JSON_TYPES]},
        },
    ],
}
LISTED = [{"prompt": "calm piano", "duration": 1}, {"prompt": "slow jazz", "duration": 1}]
BODY: dict[str, Any] = {
    "parameters": [IDEMPOTENCY],
    "requestBody": describe_json_or_form(GenerationJob, ONE_OR_MORE, several_jobs=LISTED),
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
        "description": "What the route of the task would have answered.",
        "content": dict(FILES),
        "model": GenerationsAnswer | WorkflowAnswer | CodesAnswer | AnalyzeAnswer,
        "headers": HEADERS,
    },
    409: {"model": ErrorBody, "description": "It has not finished, or never will."},
    **UNKNOWN,
}

posting = APIRouter(tags=["jobs"], route_class=JsonOrFormRoute)
looking = APIRouter(tags=["jobs"])


@posting.post("/v1/jobs", status_code=202, responses=ACCEPTED, openapi_extra=BODY)
async def create_jobs(
    request: Request, response: Response, service: Served
) -> JobAnswer | JobsAnswer:
    """Accept tasks to be run when there is time; answers at once.

    `type` names the kind of task, by default `generation`. A task that needs a file comes as the
    form of its own route, with `type` as a field.
    """
    bodies, files, listed = await _read_bodies(request)
    owner, key = request.state.share.name, read_idempotency_key(request)
    jobs = []
    for number, body in enumerate(bodies):
        job = await _build_job(request, service, body, files)
        jobs.append(job.model_copy(update={"name": build_name("job", owner, key, number)}))
    await service.jobs.check_limits(owner, [job.name for job in jobs], service.limits)
    views = await _describe_jobs(
        service, [await service.jobs.accept_job(job, files) for job in jobs]
    )
    if listed:
        return JobsAnswer(jobs=views)
    response.headers["location"] = f"/v1/jobs/{views[0].id}"
    return views[0]


@looking.get("/v1/jobs/{job_id}", responses=UNKNOWN)
async def get_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Say how far a job is."""
    job = await service.jobs.get(job_id, request.state.share.name)
    return (await _describe_jobs(service, [job]))[0]


@looking.delete("/v1/jobs/{job_id}", responses=UNKNOWN)
async def delete_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Cancel a job that waits or runs; delete one that has ended, with its audio."""
    job = await service.jobs.get(job_id, request.state.share.name)
    cancelled = await service.jobs.cancel(job, service.limits.keep_jobs_s)
    return (await _describe_jobs(service, [cancelled]))[0]


@looking.get("/v1/jobs/{job_id}/audio", response_class=Response, responses=AUDIO)
async def get_job_audio(request: Request, job_id: JobId, service: Served) -> Response:
    """Return what a job made: a file, or JSON with several."""
    job = await service.jobs.get(job_id, request.state.share.name)
    made = await service.jobs.answer(job)
    return Response(made.body, media_type=made.media_type, headers=made.headers)


async def _read_bodies(request: Request) -> tuple[list[AnyBody], dict[str, bytes], bool]:
    """Return the bodies, the files beside a single one, and whether they came as a list."""
    if is_form(request):
        fields, files = await read_form(request)
        name = fields.get("type", DEFAULT_TYPE)
        if name not in JOB_BODIES:
            raise ApiError(
                422, "invalid_value", f"type: valid values are {', '.join(JOB_BODIES)}", "type"
            )
        uploads = TASK_TYPES[cast(TypeName, name)].uploads
        return [validate_form(JOB_BODIES[name], fields, files, uploads)], files, False
    data = await request.body()
    listed = data.lstrip().startswith(b"[")
    try:
        if listed:
            return await asyncio.to_thread(SEVERAL_JOBS.validate_json, data), {}, True
        return [await asyncio.to_thread(ONE_JOB.validate_json, data)], {}, False
    except ValidationError as error:
        raise RequestValidationError(_remove_tags(error)) from error


def _remove_tags(error: ValidationError) -> list[Any]:
    """Return the problems, without the types of jobs in their places."""
    return [
        {**problem, "loc": tuple(part for part in problem["loc"] if part not in JOB_BODIES)}
        for problem in error.errors()
    ]


async def _build_job(
    request: Request, service: Service, body: AnyBody, files: Mapping[str, bytes]
) -> Job:
    """Build a job that has been checked like a request. Raises ApiError where it cannot be run."""
    now = time.time()
    if body.webhook:
        service.webhooks.check_address(body.webhook)
    built = await build_task(service, build_caller(request), body.type, body, files)
    task, resolved = built.task, built.resolved
    assert resolved
    request.state.model = task.model
    if "seed" in type(resolved).model_fields:
        resolved = resolved.model_copy(update={"seed": task.seed})
    asked = body.model_dump_json(exclude_unset=True)
    return Job(
        name="",
        type=body.type,
        owner=task.share.name,
        fingerprint=await asyncio.to_thread(hash_request, asked, files),
        body=resolved.model_dump_json(exclude_unset=True, exclude={"type", "webhook"}),
        uploads=list(files),
        webhook=body.webhook,
        model=task.model,
        seed=task.seed,
        row_seconds=task.price()[0].row_seconds,
        created=now,
        expires=now + service.limits.keep_jobs_s,
    )


async def _describe_jobs(service: Service, jobs: list[Job]) -> list[JobAnswer]:
    try:
        snapshot = await service.ledger.snapshot()
        backlog, speeds = snapshot.row_seconds, snapshot.speeds
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
    "type", "status", "model", "seed", "progress", "created", "started", "ended", "expires",
    "error",
}  # fmt: skip
