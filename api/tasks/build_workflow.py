"""Builds the four workflows."""

import asyncio
from dataclasses import replace
from functools import partial

from api.audio import codes_file
from api.respond.rendering import FileMaker
from api.respond.workflows import WorkflowRendering
from api.schemas.workflows import (
    AmbienceBody,
    PodcastBody,
    SongBody,
    StyleTransferBody,
    WorkflowBody,
)
from api.service import Service
from api.tasks.build_generation import describe_stems
from api.tasks.caller import Caller, Files, Parts, probe_upload
from graph.jobs.jobs import hash_request
from graph.registry import ModelWithCodec, Registry
from graph.workflows.ambience import plan_ambience
from graph.workflows.distribution import Distribution
from graph.workflows.podcast import VOICE, plan_podcast
from graph.workflows.song import plan_song
from graph.workflows.style_transfer import CONTENT, plan_style_transfer
from graph.workflows.task import Context, WorkflowTask


async def build_workflow(
    service: Service, caller: Caller, body: WorkflowBody, files: Files
) -> Parts:
    """Build any of the four workflows. Raises ApiError, InvalidRequest or InvalidAudio."""
    output = body.build_output()
    body_hash = await asyncio.to_thread(hash_request, body.model_dump_json(), files)
    params = replace(body.build_sampling_params("", 1), guidance_scale=body.guidance_scale)
    context = Context(
        share=caller.share,
        began=caller.began,
        pipeline=service.pipeline,
        registry=service.registry,
        limits=service.limits,
        drawn=params,
        body_hash=body_hash,
        repeatable=body.repeatable,
        model=body.model,
    )
    task, headers = await _plan_workflow(service, context, body, files)
    maker = FileMaker(output=output, signer=service.signer)
    return task, WorkflowRendering(task=task, files=maker, extra_headers=headers)


async def _plan_workflow(
    service: Service, context: Context, body: WorkflowBody, files: Files
) -> tuple[WorkflowTask, dict[str, str]]:
    """Return the planned workflow, and the headers that it adds."""
    match body:
        case SongBody():
            choose = partial(_choose_distribution, service.registry, body)
            return await plan_song(context, body.build_spec(), choose), {}
        case PodcastBody():
            voice = files.get(VOICE)
            speech = None if voice is None else await probe_upload(service, voice, VOICE)
            return await plan_podcast(context, body.build_spec(), speech), {}
        case AmbienceBody():
            return await plan_ambience(context, body.build_spec()), {}
        case StyleTransferBody():
            content = await probe_upload(service, files[CONTENT], CONTENT)
            task = await plan_style_transfer(context, body.build_spec(), content)
            return task, describe_stems(task.pair)
    raise AssertionError(f"no workflow has the body {type(body).__name__}")


def _choose_distribution(
    registry: Registry, body: SongBody, pair: ModelWithCodec
) -> Distribution | None:
    if body.distribution is None:
        return None
    field, bandwidth = "distribution.bandwidth", body.distribution.bandwidth
    codebooks = codes_file.count_codebooks(pair.codec, bandwidth, field)
    return Distribution(registry.get_codec(pair.settings), codebooks)
