"""The routes /v1/jobs, which run tasks without an open connection."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.errors import ErrorBody
from api.quality import read_snapshot
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
from api.routes.job_answers import (
    NEWEST,
    JobAnswer,
    JobsAnswer,
    JobsPage,
    describe_jobs,
    read_cursor,
    write_cursor,
)
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
from deployments.accounts import NOTHING_KNOWN, Snapshot
from graph.errors import ApiError
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
    "cancel_job": "Cancel the job.",
    "delete_job": "Delete the job.",
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
STORE_ONLY: Answers = {401: UNKNOWN[401], 503: UNKNOWN[503]}
LISTED_JOBS: Answers = {422: ERRORS[422], **STORE_ONLY}
DELETED: Answers = {204: {"description": "The job is gone, or never existed."}, **STORE_ONLY}
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
    as the form of its own route, with `type` as a field. A list is accepted whole or not at all.
    """
    owner, key = request.state.share.name, read_idempotency_key(request)
    name = build_name("job", owner, key)
    bodies, files, listed = await _read_bodies(request)
    await service.jobs.check_limits(owner, name, len(bodies), service.limits)
    admission = service.executor.admission
    snapshot = await admission.meter_requests(request.state.share, len(bodies))
    whole = "\n".join(body.model_dump_json(exclude_unset=True) for body in bodies)
    fingerprint = await asyncio.to_thread(hash_request, whole, files)
    jobs = []
    for number, body in enumerate(bodies):
        name = build_name("job", owner, key, number) if number else name
        job = await _build_job(request, service, body, files, snapshot)
        jobs.append(job.model_copy(update={"name": name, "fingerprint": fingerprint}))
        await asyncio.sleep(0)  # a long list holds up no other request
    accepted = await service.jobs.accept_jobs(jobs, files)
    views = await describe_jobs(service, accepted, snapshot)
    if listed:
        return JobsAnswer(jobs=views)
    response.headers["location"] = f"/v1/jobs/{views[0].id}"
    return views[0]


@looking.get("/v1/jobs", responses=LISTED_JOBS)
async def list_jobs(
    request: Request,
    service: Served,
    status: Annotated[Status | None, Query(description="Only jobs with this status.")] = None,
    kind: Annotated[
        TypeName | None, Query(alias="type", description="Only jobs of this type.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="The most jobs to return.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next_cursor` of the page before.")
    ] = None,
) -> JobsPage:
    """Return the jobs of the API key, the newest first."""

    def fits(job: Job) -> bool:
        return (status is None or job.status == status) and (kind is None or job.type == kind)

    before = NEWEST if cursor is None else read_cursor(cursor)
    jobs, last = await service.jobs.list_jobs(request.state.share.name, before, limit, fits)
    views = await describe_jobs(service, jobs, await read_snapshot(service))
    return JobsPage(jobs=views, next_cursor=write_cursor(last) if last else None)


@looking.get("/v1/jobs/{job_id}", responses=UNKNOWN)
async def get_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Return the current state of a job."""
    job = await service.jobs.find_job(job_id, request.state.share.name)
    return (await describe_jobs(service, [job], await read_snapshot(service)))[0]


@looking.post("/v1/jobs/{job_id}/cancel", responses=UNKNOWN)
async def cancel_job(request: Request, job_id: JobId, service: Served) -> JobAnswer:
    """Cancel a job that waits or runs. A job that has ended stays as it is, with its audio."""
    job = await service.jobs.find_job(job_id, request.state.share.name)
    cancelled = await service.jobs.cancel_job(job, service.limits.keep_jobs_s)
    return (await describe_jobs(service, [cancelled], NOTHING_KNOWN))[0]


@looking.delete("/v1/jobs/{job_id}", status_code=204, responses=DELETED)
async def delete_job(request: Request, job_id: JobId, service: Served) -> None:
    """Delete a job with its audio, cancelled first where it has not ended.

    The answer is the same where there is no such job.
    """
    job = await service.jobs.load_job(job_id)
    if job and job.owner == request.state.share.name:
        await service.jobs.cancel_job(job, service.limits.keep_jobs_s)
        await service.jobs.delete_job(job.name)


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
    request: Request,
    service: Service,
    body: AnyBody,
    files: Mapping[str, bytes],
    snapshot: Snapshot,
) -> Job:
    """Build a job, and check it like a request. Raises ApiError if it cannot be run."""
    now = time.time()
    if body.webhook:
        service.webhooks.check_address(body.webhook, request.state.share.name)
    caller = build_caller(request)
    built = await build_task(service, caller, body.type, body, files, snapshot)
    task, resolved = built.task, built.resolved
    assert resolved
    request.state.model = task.model
    if "seed" in type(resolved).model_fields:
        resolved = resolved.model_copy(update={"seed": task.seed})
    return Job(
        name="",
        type=body.type,
        owner=task.share.name,
        fingerprint="",
        body=resolved.model_dump_json(exclude_unset=True, exclude={"type", "webhook"}),
        uploads=list(files),
        webhook=body.webhook,
        model=task.model,
        seed=task.seed,
        row_seconds=task.price()[0].row_seconds,
        weight=task.share.weight,
        created=now,
        expires=now + service.limits.keep_jobs_s,
    )
