"""The fields of output files, and what fields ask of each other as JSON Schema."""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from api.audio.output import FORMATS, RATES, Format, FormatName, Normalize, Output, SampleFormat
from api.schemas.base import WHOLE, RequestModel
from graph.workflows.levels import LOUDNESS_BLOCK_S

Rule = dict[str, Any]
LIMITS = "x-limits"


def limit_by(**bounds: str) -> Rule:
    """Bound a field by limits of the server, such as `maximum="max_clips"`.

    They change while it runs, so `api.openapi` fills them in.
    """
    return {LIMITS: bounds}


WORDS: Rule = {"pattern": r"[^\s\x1c-\x1f\x85]"} | limit_by(maxLength="max_text_chars")
"""A text that is not only white space."""


def build_condition(field: str, value: object, then: Rule) -> Rule:
    """Rule the other fields where one has a value that is not its default."""
    return {
        "if": {"properties": {field: {"const": value}}, "required": [field]},
        "then": {"properties": then},
    }


def _describe_format(kind: Format) -> Rule:
    """Return what the fields may be beside the format."""
    least, most = kind.bitrates or (0, 0)
    return {
        "sample_format": {"enum": list(kind.sample_formats)},
        "sample_rate": {"enum": [*kind.rates, None]} if kind.rates else {},
        "bitrate": {"minimum": least, "maximum": most} if kind.bitrates else {"type": "null"},
    }


def _build_format_rules() -> list[Rule]:
    """Return one rule for all formats that allow the same."""
    found = list[Rule]()
    for name, kind in FORMATS.items():
        others = _describe_format(kind)
        for rule in found:
            if {**rule["properties"], "format": None} == {**others, "format": None}:
                rule["properties"]["format"]["enum"].append(name)
                break
        else:
            needed = {} if name == "wav" else {"required": ["format"]}
            found.append({"properties": {"format": {"enum": [name]}} | others} | needed)
    return found


RATE: Rule = {"minimum": RATES[0], "maximum": RATES[1]}
OUTPUT: Rule = {"anyOf": _build_format_rules()}
LOUDNESS = build_condition("normalize", "loudness", {"duration": {"minimum": LOUDNESS_BLOCK_S}})
STREAM = build_condition(
    "stream",
    True,
    {
        "normalize": {"enum": ["none", "clip"]},
        "trim_silence": {"const": False},
        "decoder": {"const": "encodec"},
    },
)
NO_STREAM: Rule = {"properties": {"stream": {"const": False}}}


def require_one(first: str, second: str) -> Rule:
    """Rule that one of two fields is given; null is as good as left out."""
    null: Rule = {"type": "null"}
    ways = (first, second), (second, first)
    return {
        "anyOf": [
            {"required": [one], "properties": {one: {"not": null}, other: null}}
            for one, other in ways
        ]
    }


BARS_OR_SECONDS = require_one("bars", "seconds")
ENVIRONMENT_OR_PROMPT = require_one("environment", "prompt")
ONE_KIND_OF_PROMPT: Rule = {
    "anyOf": [
        {
            "required": ["prompt"],
            "properties": {
                "prompt": {"type": "string", "minLength": 1},
                "prompts": {"type": ["null", "array"], "maxItems": 0},
            },
        },
        {
            "required": ["prompts"],
            "properties": {"prompts": {"type": "array", "minItems": 1}, "prompt": {"type": "null"}},
        },
    ]
}


class FileBody(RequestModel):
    """What is wanted of the files, their levels and edges aside."""

    format: Annotated[
        FormatName,
        Field(description="`opus` and `ogg` (Vorbis) are Ogg files, `aac` has ADTS frames."),
    ] = "wav"
    sample_format: Annotated[
        SampleFormat, Field(description="Of wav, pcm (both any) and flac (s16, s24).")
    ] = "s16"
    sample_rate: Annotated[
        int | None,
        Field(
            description="By default the model's, or the next that the format has.",
            json_schema_extra=RATE,
        ),
        WHOLE,
    ] = None
    bitrate: Annotated[
        int | None,
        Field(description="Of mp3, aac (128) and opus (96), in kbit/s."),
        WHOLE,
    ] = None
    tag_prompt: Annotated[bool, Field(description="Whether the file tells its prompt.")] = True

    def build_output(self) -> Output:
        """Return what is wanted. Raises InvalidRequest where the format has no such thing."""
        names = [field.name for field in fields(Output) if field.name in type(self).model_fields]
        wanted = Output(**{name: getattr(self, name) for name in names})
        wanted.check_format()
        return wanted


class OutputBody(FileBody):
    """What is wanted of the files."""

    normalize: Annotated[
        Normalize,
        Field(
            description="The level, as AudioCraft's `audio_write` sets it: -1 dB of peak, "
            "-18 dB of rms, -14 LUFS of loudness; `clip` at -1 dB."
        ),
    ] = "none"
    fade_in: Annotated[float, Field(ge=0, le=60, description="Seconds.")] = 0.0
    fade_out: Annotated[float, Field(ge=0, le=60, description="Seconds.")] = 0.0
    trim_silence: Annotated[
        bool, Field(description="Leave out what is below -50 dBFS at both ends.")
    ] = False
