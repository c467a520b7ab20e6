"""POST /analyze: how real an uploaded file sounds to the discriminators."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.guards import UploadRoute
from api.respond.files import AnalyzeAnswer
from api.respond.responses import respond
from api.routes.answers import UPLOAD_ERRORS, Answers
from api.routes.bodies import caller_of, describe_form, read_body
from api.routes.examples import AUDIO_FILE
from api.schemas.files import AnalyzeBody
from api.service import Served
from api.tasks.task_table import TASK_TYPES, build_task

ANSWERS: Answers = {200: {"model": AnalyzeAnswer}, **UPLOAD_ERRORS}

router = APIRouter(tags=["analyze"], route_class=UploadRoute, responses=ANSWERS)


@router.post(
    "/analyze",
    response_class=Response,
    openapi_extra=describe_form("analyze", file={"audio_file": AUDIO_FILE}),
)
async def analyze_audio(
    request: Request,
    service: Served,
    threshold: Annotated[
        float | None,
        Query(ge=0, le=1, description="Goes before the field of the form; 0.5 if left out."),
    ] = None,
) -> Response:
    """Score an audio file, of any length within the limits, by MPD, MSD and MS-STFT-D."""
    body, files = await read_body(request, AnalyzeBody, TASK_TYPES["analyze"].uploads)
    if threshold is not None:
        body = body.model_copy(update={"threshold": threshold})
    built = await build_task(service, caller_of(request), "analyze", body, files)
    return await respond(request, service, built)
