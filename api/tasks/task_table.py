"""The table of tasks, with the body, the uploads and the builder of each type.

Routes and jobs build tasks with this table. Uploads are probed here, but not decoded.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from api.keys import find_share
from api.quality import apply_quality
from api.respond.responses import Built
from api.schemas.base import RequestModel
from api.schemas.files import AnalyzeBody, DecodeBody, DiffuseBody, EncodeBody
from api.schemas.generation import GenerationsBody
from api.schemas.workflows import (
    AmbienceBody,
    PodcastBody,
    SongBody,
    StyleTransferBody,
)
from api.service import Service
from api.tasks.build_audio_task import build_analyze, build_decode, build_diffuse, build_encode
from api.tasks.build_generation import build_generation
from api.tasks.build_workflow import build_workflow
from api.tasks.caller import AUDIO_FILE, CODES_FILE, Caller, Files, Parts
from deployments.accounts import Snapshot
from graph.errors import ApiError
from graph.execution import Render
from graph.jobs.job import Job
from graph.tasks.task import Task
from graph.workflows.podcast import VOICE
from graph.workflows.style_transfer import CONTENT


@dataclass(frozen=True)
class TaskType:
    """One type of task."""

    body: type[RequestModel]
    build: Callable[[Service, Caller, Any, Files], Awaitable[Parts]]
    uploads: Mapping[str, bool] = field(default_factory=dict)
    """The fields of files, and whether each file is required."""

    async def resolve_body(
        self, service: Service, body: Any, files: Files, snapshot: Snapshot | None
    ) -> Any:
        """Return the body with the values of the current configuration."""
        if isinstance(body, GenerationsBody):
            return await apply_quality(service, body, files, snapshot)
        return body


TypeName = Literal[
    "generation", "song", "podcast", "ambience", "style_transfer",
    "encode", "decode", "diffuse", "regenerate", "analyze",
]  # fmt: skip
TASK_TYPES: dict[TypeName, TaskType] = {
    "generation": TaskType(
        GenerationsBody, build_generation, {"continue_from": False, "melody": False}
    ),
    "song": TaskType(SongBody, build_workflow),
    "podcast": TaskType(PodcastBody, build_workflow, {VOICE: False}),
    "ambience": TaskType(AmbienceBody, build_workflow),
    "style_transfer": TaskType(StyleTransferBody, build_workflow, {CONTENT: True}),
    "encode": TaskType(EncodeBody, build_encode, {AUDIO_FILE: True}),
    "decode": TaskType(DecodeBody, build_decode, {CODES_FILE: False}),
    "diffuse": TaskType(DiffuseBody, build_diffuse, {CODES_FILE: True}),
    "regenerate": TaskType(DiffuseBody, build_diffuse, {AUDIO_FILE: True}),
    "analyze": TaskType(AnalyzeBody, build_analyze, {AUDIO_FILE: True}),
}


async def build_task(
    service: Service,
    caller: Caller,
    name: TypeName,
    body: Any,
    files: Files,
    snapshot: Snapshot | None = None,
) -> Built:
    """Build the task of a request. Raises ApiError, InvalidRequest or InvalidAudio.

    `snapshot` is the outstanding work; where it is not given, it is read if the task needs it.
    """
    kind = TASK_TYPES[name]
    for upload, needed in kind.uploads.items():
        if needed and upload not in files:
            raise ApiError(422, "missing_field", f"{upload}: a file is required", upload)
    resolved = await kind.resolve_body(service, body, files, snapshot)
    task, rendering = await kind.build(service, caller, resolved, files)
    service.executor.held_bytes.check_size(rendering.count_bytes())
    return Built(task, rendering, body.model_dump_json(), files, resolved)


async def build_job_task(service: Service, job: Job, files: Files) -> tuple[Task, Render, int]:
    """Build the task of an accepted job. Raises ApiError 401 if its key was removed."""
    share = find_share(job.owner, service.limits)
    # The key's rate counted the job when it was accepted.
    caller = Caller(replace(share, requests_per_minute=None), time.perf_counter())
    kind = TASK_TYPES[cast(TypeName, job.type)]
    body = kind.body.model_validate_json(job.body)
    task, rendering = await kind.build(service, caller, body, files)
    return task, rendering.render, rendering.count_bytes()
