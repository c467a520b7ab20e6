"""Bodies of the endpoints of files: encode, decode, regenerate and analyze."""

from typing import Annotated, Literal

from pydantic import Field

from api.audio.codes_file import MAX_CODE
from api.schemas.base import WHOLE, RequestModel

ModelName = Annotated[str | None, Field(description="A name from /v1/models.")]
Code = Annotated[int, Field(ge=0, lt=MAX_CODE), WHOLE]


class EncodeBody(RequestModel):
    """How to encode a file."""

    codebooks: Annotated[
        int | None, Field(ge=1, description="Keep the first so many; by default all."), WHOLE
    ] = None
    bandwidth: Annotated[
        float | None,
        Field(gt=0, le=1000, description="The number of codebooks as a bandwidth, in kbit/s."),
    ] = None
    format: Annotated[Literal["json", "safetensors"], Field(description="What the answer is.")] = (
        "json"
    )
    model: ModelName = None


class DecodeBody(RequestModel):
    """Codes to decode."""

    codes: Annotated[
        list[list[Code]] | None, Field(description="[codebooks][frames]", min_length=1)
    ] = None
    samples: Annotated[
        int | None,
        Field(ge=1, description="Samples per channel to keep; by default those of all frames."),
        WHOLE,
    ] = None
    model: ModelName = None


class DiffuseBody(RequestModel):
    """How to decode by diffusion."""

    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**63 - 1,
            description="The same seed gives the same audio. Drawn if left out.",
        ),
        WHOLE,
    ] = None
    model: ModelName = None


class AnalyzeBody(RequestModel):
    """How to judge a file."""

    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1, description="The mean score above which a file is real; 0.5 if left out."
        ),
    ] = None
    model: ModelName = None
