"""The bodies of the routes that are compatible with OpenAI and ElevenLabs."""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from api.audio.output import FORMATS, FormatName, Output
from api.schemas import rules
from api.schemas.base import ModelName, RequestModel
from api.schemas.generation import SHORTEST_S, ClipBody, Text, check_words
from engine.errors import InvalidRequest
from engine.params import GenerationParams
from graph.registry import ModelWithCodec
from graph.settings import Limits, check_text

SPEECH_PCM_RATE = 24000
"""The sample rate of OpenAI's `pcm` format in Hz, which has no header."""
GUIDANCE_OF_INFLUENCE = 10.0
"""The factor from ElevenLabs' influence (default 0.3) to the guidance scale (default 3)."""
DEFAULT_INFLUENCE = 0.3


class SpeechBody(ClipBody):
    """The body of OpenAI's speech route, extended by AudioCraft's sampling parameters."""

    input: Text
    voice: Annotated[
        str | dict[str, Any] | None,
        Field(description="The server ignores this field.", exclude=True),
    ] = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Annotated[
        Literal["audio", "sse"], Field(description="`sse` sends events with audio in base64.")
    ] = "audio"
    instructions: Annotated[str | None, Field(description="The server ignores this field.")] = None
    speed: Annotated[float, Field(ge=1, le=1, description="Only 1 is supported.")] = 1.0

    _check_words = field_validator("input")(check_words)

    def check_limits(self, limits: Limits) -> None:
        """Check the body before its model is asked. Raises ApiError if the limits forbid it."""
        check_text(self.input, limits, "input")
        self.check_duration(limits)

    def build_params(self, pair: ModelWithCodec, limits: Limits) -> GenerationParams:
        """Build the engine's parameters. Raises ApiError if the model or the limits forbid them."""
        return self.build_clip_params(self.input, pair, limits)

    def build_output(self) -> Output:
        """Build the settings of the output file."""
        rate = SPEECH_PCM_RATE if self.response_format == "pcm" else None
        return Output(self.response_format, sample_rate=rate)


class SoundBody(RequestModel):
    """The body of ElevenLabs' route for sound effects."""

    text: Text
    duration_seconds: Annotated[
        float | None,
        Field(
            ge=SHORTEST_S,
            le=3600,
            description="The length in seconds; the default is 10, at most the server's limit.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s"),
        ),
    ] = None
    prompt_influence: Annotated[
        float | None,
        Field(ge=0, le=1, description="A tenth of the guidance scale; the default is 0.3."),
    ] = None
    loop: Annotated[
        bool | None,
        Field(description="Loops are not supported.", json_schema_extra={"enum": [False, None]}),
    ] = None
    model_id: ModelName = None

    _check_words = field_validator("text")(check_words)

    @field_validator("loop")
    @classmethod
    def _check_loop(cls, loop: bool | None) -> bool | None:
        if loop:
            raise ValueError("the server cannot generate loops; leave it out")
        return loop

    def _build_clip(self) -> ClipBody:
        seconds = self.duration_seconds
        return ClipBody() if seconds is None else ClipBody(duration=seconds)

    def check_limits(self, limits: Limits) -> None:
        """Check the body before its model is asked. Raises ApiError if the limits forbid it."""
        check_text(self.text, limits, "text")
        self._build_clip().check_duration(limits, "duration_seconds")

    def build_params(self, pair: ModelWithCodec, limits: Limits) -> GenerationParams:
        """Build the engine's parameters. Raises ApiError if the model or the limits forbid them."""
        influence = DEFAULT_INFLUENCE if self.prompt_influence is None else self.prompt_influence
        clip = self._build_clip()
        clip.count_frames(pair.codec.frame_rate, limits, "duration_seconds")
        sampled = clip.build_clip_params(self.text, pair, limits)
        return replace(sampled, guidance_scale=GUIDANCE_OF_INFLUENCE * influence)


def read_output_format(name: str) -> Output:
    """Parse ElevenLabs' `output_format`: format, rate in Hz and kbit/s, as in `mp3_44100_128`.

    Raises InvalidRequest.
    """
    found = re.fullmatch(r"([a-z0-9]+)_([0-9]{1,6})(?:_([0-9]{1,6}))?", name)
    kind = next((one for one in get_args(FormatName) if found and one == found[1]), None)
    if not found or kind is None:
        valid = ", ".join(FORMATS)
        problem = f"{name!r} is not valid; write a format ({valid}), its rate and, for some, kbit/s"
        raise InvalidRequest(f"output_format: {problem}, such as mp3_44100_128", "output_format")
    _, rate, bitrate = found.groups()
    output = Output(kind, sample_rate=int(rate), bitrate=int(bitrate) if bitrate else None)
    try:
        output.check_format()
    except InvalidRequest as error:
        raise InvalidRequest(error.message, "output_format") from error
    return output
