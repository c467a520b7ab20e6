"""The bodies of the routes that process files: encode, decode, regenerate and analyze."""

from typing import Annotated, Literal

from pydantic import Field

from api.audio.codes_file import MAX_CODE
from api.schemas.base import WHOLE, Checked, ModelName, RequestModel, Seed

Code = Annotated[int, Field(ge=0, lt=MAX_CODE), WHOLE]


class EncodeBody(RequestModel):
    """The options of encoding a file."""

    codebooks: Annotated[
        int | None, Field(ge=1, description="The number of codebooks; the default is all."), WHOLE
    ] = None
    bandwidth: Annotated[
        float | None,
        Field(gt=0, le=1000, description="A bandwidth in kbit/s, instead of `codebooks`."),
    ] = None
    format: Annotated[
        Literal["json", "safetensors"], Field(description="The format of the answer.")
    ] = "json"
    model: ModelName = None


class DecodeBody(RequestModel):
    """The codes to decode to audio."""

    codes: Annotated[
        Checked[Checked[Code]] | None, Field(description="Codes [codebooks][frames].", min_length=1)
    ] = None
    samples: Annotated[
        int | None,
        Field(ge=1, description="The number of samples per channel to keep; the default is all."),
        WHOLE,
    ] = None
    model: ModelName = None


class DiffuseBody(RequestModel):
    """The options of decoding by multi-band diffusion."""

    seed: Seed = None
    model: ModelName = None


class AnalyzeBody(RequestModel):
    """The options of analyzing a file."""

    threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="Higher mean scores count as real; the default is 0.5."),
    ] = None
    model: ModelName = None
