"""The bodies of jobs: the body of each task, with the type of the task and a webhook."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator

from api.schemas import rules
from api.schemas.base import Checked, RequestModel
from api.schemas.files import AnalyzeBody, DecodeBody, DiffuseBody, EncodeBody
from api.schemas.generation import GenerationsBody
from api.schemas.workflows import AmbienceBody, PodcastBody, SongBody, StyleTransferBody

DEFAULT_TYPE = "generation"


class JobFields(RequestModel):
    """The fields that every job has in addition to the fields of its task."""

    webhook: Annotated[
        str | None,
        Field(
            max_length=2000,
            description="An https address that receives a message when the job starts and ends, "
            "signed as in Standard Webhooks.",
        ),
    ] = None


class GenerationJob(GenerationsBody, JobFields):
    """Clips to generate by a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                rules.OUTPUT,
                rules.LOUDNESS,
                rules.NO_STREAM,
                rules.ONE_KIND_OF_PROMPT,
            ]
        }
    )
    type: Literal["generation"] = "generation"

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if self.stream:
            raise ValueError("a job cannot stream; leave out stream")
        return self


class SongJob(SongBody, JobFields):
    """A song to make by a job."""

    type: Literal["song"]


class PodcastJob(PodcastBody, JobFields):
    """A podcast to make by a job."""

    type: Literal["podcast"]


class AmbienceJob(AmbienceBody, JobFields):
    """An ambience to make by a job."""

    type: Literal["ambience"]


class StyleTransferJob(StyleTransferBody, JobFields):
    """A style transfer to make by a job."""

    type: Literal["style_transfer"]


class EncodeJob(EncodeBody, JobFields):
    """A file to encode by a job."""

    type: Literal["encode"]


class DecodeJob(DecodeBody, JobFields):
    """Codes to decode by a job."""

    type: Literal["decode"]


class DiffuseJob(DiffuseBody, JobFields):
    """Codes to decode by diffusion by a job."""

    type: Literal["diffuse"]


class RegenerateJob(DiffuseBody, JobFields):
    """A file to regenerate by diffusion by a job."""

    type: Literal["regenerate"]


class AnalyzeJob(AnalyzeBody, JobFields):
    """A file to analyze by a job."""

    type: Literal["analyze"]


Job = (
    GenerationJob
    | SongJob
    | PodcastJob
    | AmbienceJob
    | StyleTransferJob
    | EncodeJob
    | DecodeJob
    | DiffuseJob
    | RegenerateJob
    | AnalyzeJob
)
JOB_BODIES: dict[str, type[Job]] = {
    "generation": GenerationJob,
    "song": SongJob,
    "podcast": PodcastJob,
    "ambience": AmbienceJob,
    "style_transfer": StyleTransferJob,
    "encode": EncodeJob,
    "decode": DecodeJob,
    "diffuse": DiffuseJob,
    "regenerate": RegenerateJob,
    "analyze": AnalyzeJob,
}
JSON_TYPES = ("generation", "song", "podcast", "ambience", "decode")
"""The types of jobs that can be sent without a file."""


def read_type(body: Any) -> str:
    """Return the type of job that a body names, or the default type."""
    named = body.get("type", DEFAULT_TYPE) if isinstance(body, dict) else DEFAULT_TYPE
    return named if isinstance(named, str) else ""


AnyJob = Annotated[
    Annotated[GenerationJob, Tag("generation")]
    | Annotated[SongJob, Tag("song")]
    | Annotated[PodcastJob, Tag("podcast")]
    | Annotated[AmbienceJob, Tag("ambience")]
    | Annotated[StyleTransferJob, Tag("style_transfer")]
    | Annotated[EncodeJob, Tag("encode")]
    | Annotated[DecodeJob, Tag("decode")]
    | Annotated[DiffuseJob, Tag("diffuse")]
    | Annotated[RegenerateJob, Tag("regenerate")]
    | Annotated[AnalyzeJob, Tag("analyze")],
    Discriminator(
        read_type,
        custom_error_type="unknown_type",
        custom_error_message=f"type: valid values are {', '.join(JOB_BODIES)}",
    ),
]
MAX_LISTED_JOBS = 100
"""The most jobs in one request."""
ONE_JOB: TypeAdapter[Job] = TypeAdapter(AnyJob)
SEVERAL_JOBS: TypeAdapter[list[Job]] = TypeAdapter(
    Annotated[Checked[AnyJob], Field(min_length=1, max_length=MAX_LISTED_JOBS)]
)
