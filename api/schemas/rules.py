"""The fields of output files, and JSON Schema rules between the fields of bodies."""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from api.audio.output import FORMATS, RATES, Format, FormatName, Normalize, Output, SampleFormat
from api.schemas.base import WHOLE, RequestModel
from graph.workflows.levels import LOUDNESS_BLOCK_S

Rule = dict[str, Any]
LIMITS = "x-limits"


def limit_by(**bounds: str) -> Rule:
    """Return a rule that names limits of the server, such as `maximum="max_clips"`.

    The limits can change while the server runs, so `api.openapi` fills in their values.
    """
    return {LIMITS: bounds}


WORDS: Rule = {"pattern": r"[^\s\x1c-\x1f\x85]"} | limit_by(maxLength="max_text_chars")
"""The rule for a text that is not only white space."""


def build_condition(field: str, value: object, then: Rule) -> Rule:
    """Return a rule for the other fields that applies if `field` has `value`."""
    return {
        "if": {"properties": {field: {"const": value}}, "required": [field]},
        "then": {"properties": then},
    }


def _describe_format(kind: Format) -> Rule:
    """Return the valid values of the other fields for a format."""
    least, most = kind.bitrates or (0, 0)
    return {
        "sample_format": {"enum": list(kind.sample_formats)},
        "sample_rate": {"enum": [*kind.rates, None]} if kind.rates else {},
        "bitrate": {"minimum": least, "maximum": most} if kind.bitrates else {"type": "null"},
    }


def _build_format_rules() -> list[Rule]:
    """Build the rules of all formats; formats with equal rules share one."""
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
    """Return a rule that exactly one of two fields is given; null counts as left out."""
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
    """The fields of output files, without levels and edges."""

    format: Annotated[
        FormatName,
        Field(description="`opus` and `ogg` (Vorbis) are Ogg files; `aac` has ADTS frames."),
    ] = "wav"
    sample_format: Annotated[
        SampleFormat, Field(description="Any for wav and pcm; `s16` or `s24` for flac.")
    ] = "s16"
    sample_rate: Annotated[
        int | None,
        Field(
            description="The rate in Hz; the default is the model's, or the next in the format.",
            json_schema_extra=RATE,
        ),
        WHOLE,
    ] = None
    bitrate: Annotated[
        int | None,
        Field(description="The kbit/s of mp3 and aac (default 128) or opus (default 96)."),
        WHOLE,
    ] = None
    tag_prompt: Annotated[bool, Field(description="Add the prompt to the tags.")] = True

    def build_output(self) -> Output:
        """Build the file's settings. Raises InvalidRequest if the format does not support them."""
        names = [field.name for field in fields(Output) if field.name in type(self).model_fields]
        wanted = Output(**{name: getattr(self, name) for name in names})
        wanted.check_format()
        return wanted


class OutputBody(FileBody):
    """The fields of output files, with levels and edges."""

    normalize: Annotated[
        Normalize,
        Field(
            description="How to set the level, as AudioCraft's `audio_write` does: `peak` to -1 "
            "dB, `rms` to -18 dB, `loudness` to -14 LUFS; `clip` limits peaks to -1 dB."
        ),
    ] = "none"
    fade_in: Annotated[float, Field(ge=0, le=60, description="The fade-in in seconds.")] = 0.0
    fade_out: Annotated[float, Field(ge=0, le=60, description="The fade-out in seconds.")] = 0.0
    trim_silence: Annotated[
        bool, Field(description="Whether to remove samples below -50 dBFS at both ends.")
    ] = False

    @property
    def whole_clip_for(self) -> str | None:
        """The name of a field whose value needs the whole clip, or None."""
        return Output(normalize=self.normalize, trim_silence=self.trim_silence).whole_clip_for
