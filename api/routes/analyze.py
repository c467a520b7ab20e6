"""POST /analyze: how real an uploaded file sounds to the discriminators."""

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from pydantic import BaseModel, Field

from api.guards import UploadRoute
from api.routes.answers import UPLOAD_ERRORS
from api.routes.examples import AUDIO_FILE, audio_form
from api.service import Served
from deployments.settings import DiscriminatorsSettings

Threshold = Annotated[float | None, Field(ge=0, le=1)]


class Scales(BaseModel):
    """The mean logit of each sub-discriminator; high is real."""

    mpd: list[float]
    """One a period."""
    msd: list[float]
    """One a scale; all hear the same signal, as in AudioCraft, which drops the downsampled one."""
    msstftd: list[float]
    """One a resolution."""


class AnalyzeAnswer(BaseModel):
    """What the discriminators say of a file."""

    mpd_score: Annotated[float, Field(description="Mean sigmoid of the first period's logits.")]
    msd_score: Annotated[float, Field(description="Mean sigmoid of the first scale's logits.")]
    msstftd_score: Annotated[
        float, Field(description="Mean sigmoid of the first resolution's logits.")
    ]
    feature_maps: Annotated[
        list[list[float]],
        Field(
            description="One list a layer of those three, in that order: the mean absolute "
            "activation of each channel, of at most 32 (wider layers are averaged)."
        ),
    ]
    is_real: Annotated[bool, Field(description="Whether the mean score is above the threshold.")]
    probability: Annotated[
        float | None,
        Field(
            description="The figure to trust: the calibrated probability that the file is real, "
            "against the generated audio that these discriminators know. Null: not calibrated."
        ),
    ]
    scales: Scales
    threshold: float
    model: str


router = APIRouter(tags=["analyze"], route_class=UploadRoute, responses=UPLOAD_ERRORS)


@router.post("/analyze", openapi_extra=audio_form(file={"audio_file": AUDIO_FILE}))
async def analyze_audio(
    request: Request,
    service: Served,
    audio_file: Annotated[UploadFile, File(description="wav, flac, mp3, ogg, opus, m4a or aiff.")],
    threshold: Annotated[Threshold, Query(description="0.5 if left out.")] = None,
    form_threshold: Annotated[
        Threshold, Form(alias="threshold", description="The same as a field; the query goes first.")
    ] = None,
    model: Annotated[str | None, Form(description="A name from /v1/models.")] = None,
) -> AnalyzeAnswer:
    """Score an audio file, of any length within the limits, by MPD, MSD and MS-STFT-D."""
    chosen = service.registry.pick(DiscriminatorsSettings, model)
    data = await audio_file.read()
    audio = await service.pipeline.read_to_analyze(chosen, data, service.limits)
    async with service.charged(request, chosen.name, audio.seconds):
        found = await service.pipeline.analyze(chosen, audio)
    given = [one for one in (threshold, form_threshold) if one is not None]
    limit = given[0] if given else 0.5
    return AnalyzeAnswer(
        mpd_score=found.scores["mpd"],
        msd_score=found.scores["msd"],
        msstftd_score=found.scores["msstftd"],
        feature_maps=found.feature_maps,
        is_real=found.is_real(limit),
        probability=found.probability,
        scales=Scales(**found.logits),
        threshold=limit,
        model=chosen.name,
    )
