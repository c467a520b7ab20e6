"""The bodies of generations, and how they become the engine's parameters."""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.schemas import rules
from api.schemas.base import WHOLE, Parts, RepeatableBody
from api.schemas.rules import OutputBody
from api.settings import Decoder, TierName
from engine.params import Codes, GenerationParams
from graph.errors import ApiError
from graph.registry import ModelWithCodec
from graph.settings import Limits, check_seconds, check_text
from graph.workflows.levels import LOUDNESS_BLOCK_S

Text = Annotated[
    str,
    Field(
        description="A description of the audio to generate.",
        json_schema_extra=rules.WORDS,
    ),
]
GuidanceScale = Annotated[
    float, Field(ge=0, le=20, description="The scale of classifier-free guidance.")
]
TARGET_S = 10.0
"""The default time limit of quality `auto`, in seconds."""
SHORTEST_S = 0.02
"""The length of one frame in the codecs of the language models, in seconds."""


class ClipBody(RepeatableBody):
    """The sampling parameters and the duration of a clip."""

    duration: Annotated[
        float,
        Field(
            ge=SHORTEST_S,
            le=3600,
            description="The length in seconds; the default is 10, at most the server's limit.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 10.0

    def check_duration(
        self, limits: Limits, field: str = "duration", shortest: float = SHORTEST_S
    ) -> float:
        """Return the clip's seconds. Raises ApiError if they are too few or too many."""
        by_default, longest = "duration" not in self.model_fields_set, limits.max_duration_s
        seconds = min(self.duration, longest) if by_default else self.duration
        check_seconds(seconds, longest, "", field, shortest)
        return seconds

    def count_frames(self, frame_rate: float, limits: Limits, field: str = "duration") -> int:
        """Return the clip's number of frames. Raises ApiError if it is too short or too long."""
        return int(self.check_duration(limits, field, 1 / frame_rate) * frame_rate)

    def build_clip_params(
        self, text: str, pair: ModelWithCodec, limits: Limits
    ) -> GenerationParams:
        """Build the engine's parameters. Raises ApiError if the clip is too short or too long."""
        return self.build_sampling_params(text, self.count_frames(pair.codec.frame_rate, limits))


def check_words(text: str | None) -> str | None:
    """Return the text. Raises ValueError if it is only white space or is not valid Unicode."""
    if text is None:
        return None
    if not text.strip():
        raise ValueError("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


class GenerateBody(ClipBody):
    """The body of the simple routes, which generate one clip from one text."""

    text: Text
    cfg_coef: GuidanceScale = 3.0

    _check_words = field_validator("text")(check_words)

    def check_limits(self, limits: Limits) -> None:
        """Check the body before its model is asked. Raises ApiError if the limits forbid it."""
        check_text(self.text, limits, "text")
        self.check_duration(limits)

    def build_params(self, pair: ModelWithCodec, limits: Limits) -> GenerationParams:
        """Build the engine's parameters. Raises ApiError if the model or the limits forbid them."""
        params = self.build_clip_params(self.text, pair, limits)
        return replace(params, guidance_scale=self.cfg_coef)


class GenerationsBody(ClipBody, OutputBody):
    """The body of a generation: one or more prompts, and one or more clips of each."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                rules.OUTPUT,
                rules.LOUDNESS,
                rules.STREAM,
                rules.ONE_KIND_OF_PROMPT,
            ]
        }
    )

    prompt: Annotated[Text | None, Field(description="The audio to generate.")] = None
    prompts: Annotated[
        Parts[Text] | None,
        Field(
            min_length=1,
            description="A list of prompts, instead of `prompt`.",
            json_schema_extra=rules.limit_by(maxItems="max_clips"),
        ),
    ] = None
    n: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="The number of clips of each prompt.",
            json_schema_extra=rules.limit_by(maximum="max_clips"),
        ),
        WHOLE,
    ] = 1
    guidance_scale: GuidanceScale = 3.0
    greedy: Annotated[
        bool, Field(description="Always choose the most likely code, as with temperature 0.")
    ] = False
    extend_stride: Annotated[
        float | None,
        Field(gt=0, le=3600, description="The step between windows of a long clip, in seconds."),
    ] = None
    quality: Annotated[
        TierName | Literal["auto"] | None,
        Field(
            description="The tier sets `model`, `decoder` and the fields of the file (`format`, "
            "`sample_rate`, `bitrate`) that the request leaves out; see /v1/limits. If the request "
            "sets one field of the file, the tier sets none of them. `auto` chooses the best tier "
            "that can probably finish within `target_s`."
        ),
    ] = None
    target_s: Annotated[
        float | None, Field(gt=0, le=3600, description="The time limit of `auto`; default: 10 s.")
    ] = None
    decoder: Annotated[
        Decoder, Field(description="`mbd`: multi-band diffusion, better but slower.")
    ] = "encodec"
    return_codes: Annotated[bool, Field(description="Answer with JSON and the codes.")] = False
    start: Annotated[float, Field(ge=0, description="The start in the file, in seconds.")] = 0.0
    end: Annotated[float | None, Field(gt=0, description="The end in the file, in seconds.")] = None
    include_prompt: Annotated[
        bool, Field(description="Whether the answer begins with the audio that is continued.")
    ] = True
    stream: Annotated[
        bool,
        Field(description="Whether the server sends the clip while it is generated."),
    ] = False

    _check_words = field_validator("prompt")(check_words)

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, texts: list[str] | None) -> list[str] | None:
        for text in texts or ():
            check_words(text)
        return texts

    @model_validator(mode="after")
    def _check_one_prompt(self) -> Self:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("give either prompt or prompts")
        return self

    @property
    def texts(self) -> list[str]:
        """The prompts, from `prompts` or `prompt`."""
        return self.prompts or [self.prompt or ""]

    def check_limits(self, limits: Limits) -> None:
        """Check the body before its model is asked. Raises ApiError if the limits forbid it."""
        self.check_duration(limits)
        if self.normalize == "loudness" and self.duration < LOUDNESS_BLOCK_S:
            reason = f"a clip below {LOUDNESS_BLOCK_S:g} s has no loudness; use peak or rms"
            raise ApiError(422, "invalid_value", f"normalize: {reason}", "normalize")
        for text in self.texts:
            check_text(text, limits, "prompt" if self.prompts is None else "prompts")
        if (clips := len(self.texts) * self.n) > limits.max_clips:
            message = f"n: {clips} clips in one request; allowed: up to {limits.max_clips}"
            raise ApiError(422, "invalid_value", message, "n")

    def build_params(
        self, pair: ModelWithCodec, limits: Limits, prompt: Codes | None
    ) -> list[GenerationParams]:
        """Build the parameters of each clip, for every variation of every prompt."""
        sampled = self.build_clip_params("", pair, limits)
        of_each = replace(
            sampled,
            temperature=0.0 if self.greedy else self.temperature,
            guidance_scale=self.guidance_scale,
            stride_seconds=self.extend_stride,
            prompt=prompt,
        )
        return [
            replace(of_each, text=text, variation=variation)
            for text in self.texts
            for variation in range(self.n)
        ]
