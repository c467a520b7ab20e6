"""The routes /v1/jobs, which run tasks without an open connection."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from api.errors import ErrorBody
from api.respond.clips import GenerationsAnswer
from api.respond.files import AnalyzeAnswer, CodesAnswer
from api.respond.responses import read_idempotency_key
from api.respond.stored_file import respond_with_file
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
    MAX_LISTED_JOBS,
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

JobId = Annotated[str, Path(description="The id from the answer of `POST /v1/jobs`.")]


def _describe_body(name: str) -> dict[str, Any]:
    if name == DEFAULT_TYPE:
        return build_json_schema(JOB_BODIES[name])
    # The routes of workflows already add the nested schemas to the document's components.
    schema = JOB_BODIES[name].model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


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


ONE_OR_MORE = {
    "title": "JobsBody",
    "oneOf": [
        {"anyOf": [_describe_body(name) for name in JSON_TYPES]},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_LISTED_JOBS,
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
    "get_job": "The current state of the job.",
    "get_job_audio": "The answer of a finished job.",
    "delete_job": "Cancel or delete the job.",
}
ACCEPTED: Answers = {
    202: {
        "description": "The job is accepted. A list is accepted only if all of its jobs are valid.",
        "headers": {"location": {"description": "The job's path.", "schema": {"type": "string"}}},
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
    404: {"model": ErrorBody, "description": "The job is unknown or has expired."},
    503: {"model": ErrorBody, "description": "The storage of jobs cannot be reached."},
}
AUDIO: Answers = {
    200: {
        "description": "The answer that the route of the task would send.",
        "content": dict(FILES),
        "model": GenerationsAnswer | WorkflowAnswer | CodesAnswer | AnalyzeAnswer,
        "headers": HEADERS,
    },
    206: {"description": "The bytes that `Range` asks for."},
    304: {"description": "The answer has the `ETag` of `If-None-Match`."},
    416: {"model": ErrorBody, "description": "The answer has none of the bytes of `Range`."},
    409: {"model": ErrorBody, "description": "The job has no answer yet, or will never have one."},
    **UNKNOWN,
}

posting = APIRouter(tags=["jobs"], route_class=JsonOrFormRoute)
looking = APIRouter(tags=["jobs"])


@posting.post("/v1/jobs", status_code=202, responses=ACCEPTED, openapi_extra=BODY)
async def create_jobs(
    request: Request, response: Response, service: Served
) -> JobAnswer | JobsAnswer:
    """Accept tasks that run in the background; the answer comes at once.

    `type` names the type of the task; the default is `generation`. Send a task that needs a file
    as the form of its own route, with `type` as a field.
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
    """Return the current state of a job."""
    job = await service.jobs.find_job(job_id, request.state.share.name)
    return (await _describe_jobs(service, [job]))[0]


@looking.delete("/v1/jobs/{job_id}", responses=UNKNOWN)
async def delete_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Cancel a job that waits or runs; delete a job that has ended, with its audio."""
    job = await service.jobs.find_job(job_id, request.state.share.name)
    cancelled = await service.jobs.cancel_job(job, service.limits.keep_jobs_s)
    return (await _describe_jobs(service, [cancelled]))[0]


@looking.get("/v1/jobs/{job_id}/audio", response_class=Response, responses=AUDIO)
async def get_job_audio(request: Request, job_id: JobId, service: Served) -> Response:
    """Return the answer of a finished job: a file, or JSON with several files.

    A download that broke off is continued with `Range`, and `If-Range` with the `ETag`.
    """
    job = await service.jobs.find_job(job_id, request.state.share.name)
    answer, size = await service.jobs.find_answer(job)
    read = partial(service.jobs.files.read_parts, job.name, answer.file)
    tag = f'"{job.name}.{answer.file}"'
    return respond_with_file(request, read, size, tag, answer.media_type, answer.headers)


async def _read_bodies(request: Request) -> tuple[list[AnyBody], dict[str, bytes], bool]:
    """Return the bodies, the files of a form, and whether the bodies are a list."""
    if is_form(request):
        fields, files = await read_form(request)
        name = fields.get("type", DEFAULT_TYPE)
        if name not in JOB_BODIES:
            message = f"type: valid values are {', '.join(JOB_BODIES)}"
            raise ApiError(422, "invalid_value", message, "type")
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
    """Return the problems without the types of jobs, which pydantic adds to their locations."""
    return [
        {**problem, "loc": tuple(part for part in problem["loc"] if part not in JOB_BODIES)}
        for problem in error.errors()
    ]


async def _build_job(
    request: Request, service: Service, body: AnyBody, files: Mapping[str, bytes]
) -> Job:
    """Build a job, and check it like a request. Raises ApiError if it cannot be run."""
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
        snapshot = await service.ledger.fetch_snapshot()
        backlog, speeds = snapshot.row_seconds, snapshot.speeds
    except ApiError:  # the ledger cannot be reached, so the speeds are unknown
        backlog, speeds = {}, {}
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
