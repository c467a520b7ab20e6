"""The bodies of the routes that process files: encode, decode, regenerate and analyze."""

from typing import Annotated, Literal

from pydantic import Field

from api.audio.codes_file import MAX_CODE
from api.schemas.base import WHOLE, RequestModel

ModelName = Annotated[str | None, Field(description="The name of a model in /v1/models.")]
Code = Annotated[int, Field(ge=0, lt=MAX_CODE), WHOLE]


class EncodeBody(RequestModel):
    """The options of encoding a file."""

    codebooks: Annotated[
        int | None,
        Field(ge=1, description="The number of codebooks to keep; the default is all."),
        WHOLE,
    ] = None
    bandwidth: Annotated[
        float | None,
        Field(
            gt=0,
            le=1000,
            description="The bandwidth in kbit/s, as another way to set the number of codebooks.",
        ),
    ] = None
    format: Annotated[
        Literal["json", "safetensors"], Field(description="The format of the answer.")
    ] = "json"
    model: ModelName = None


class DecodeBody(RequestModel):
    """The codes to decode to audio."""

    codes: Annotated[
        list[list[Code]] | None,
        Field(description="The codes as [codebooks][frames].", min_length=1),
    ] = None
    samples: Annotated[
        int | None,
        Field(ge=1, description="The number of samples per channel to keep; the default is all."),
        WHOLE,
    ] = None
    model: ModelName = None


class DiffuseBody(RequestModel):
    """The options of decoding by multi-band diffusion."""

    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=2**63 - 1,
            description="The same seed gives the same audio. The default is a random seed.",
        ),
        WHOLE,
    ] = None
    model: ModelName = None


class AnalyzeBody(RequestModel):
    """The options of analyzing a file."""

    threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="A file counts as real above this mean score; the default is 0.5.",
        ),
    ] = None
    model: ModelName = None
