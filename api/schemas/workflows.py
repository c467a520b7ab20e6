"""The bodies of workflows, which `graph.workflows` plans."""

import re
from dataclasses import fields
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.schemas import rules
from api.schemas.base import WHOLE, Parts, RepeatableBody, RequestModel
from api.schemas.generation import GuidanceScale, Text, check_words
from api.schemas.rules import FileBody
from graph.workflows import ambience, podcast, song, style_transfer
from graph.workflows.levels import LOUDNESS_BLOCK_S

KEY_NAMES = r"^[A-G][#b]? (major|minor)$"
Environment = Literal["forest", "ocean", "city", "dungeon"]
Loudness = Annotated[
    float,
    Field(
        ge=-40,
        le=-5,
        description="The loudness of the mix in LUFS, lower if the peak would exceed -1 dB.",
    ),
]
EffectsModel = Annotated[
    str | None, Field(description="A model in /v1/models; the default is the first sound model.")
]


class WorkflowBody(RepeatableBody, FileBody):
    """The fields that all workflows share."""

    model_config = ConfigDict(json_schema_extra={"allOf": [rules.OUTPUT]})

    guidance_scale: GuidanceScale = 3.0


Spec = TypeVar("Spec")


def copy_fields(kind: type[Spec], body: RequestModel, **others: Any) -> Spec:
    """Build a dataclass of `graph.workflows` from a body's fields of the same names."""
    names = [field.name for field in fields(kind) if field.name not in others]  # type: ignore[arg-type]
    return kind(**{name: getattr(body, name) for name in names}, **others)


class Section(RequestModel):
    """A section of a song."""

    model_config = ConfigDict(json_schema_extra=rules.BARS_OR_SECONDS)

    name: Annotated[str, Field(min_length=1, max_length=100, description="The name.")]
    prompt: Text
    bars: Annotated[int | None, Field(ge=1, le=1000, description="The length in bars."), WHOLE] = (
        None
    )
    seconds: Annotated[
        float | None,
        Field(
            gt=0, le=3600, description="The length in seconds, rounded to at least one whole bar."
        ),
    ] = None

    _check_words = field_validator("name", "prompt")(check_words)

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.bars is None) == (self.seconds is None):
            raise ValueError("give either bars or seconds")
        return self


class Effect(RequestModel):
    """A sound effect that is mixed into a song."""

    prompt: Text
    at: Annotated[float, Field(ge=0, le=3600, description="The start in the song, in seconds.")]
    duration: Annotated[
        float,
        Field(
            ge=LOUDNESS_BLOCK_S,
            le=3600,
            description="The length in seconds; the effect must end before the song ends.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s"),
        ),
    ] = 2.0
    gain_db: Annotated[
        float, Field(ge=-60, le=12, description="The gain in dB; 0 is as loud as the music.")
    ] = -6.0

    _check_words = field_validator("prompt")(check_words)


class Distribution(RequestModel):
    """A second mix that EnCodec has compressed."""

    bandwidth: Annotated[
        float, Field(gt=0, le=1000, description="A bandwidth in kbit/s that the codec supports.")
    ]


class SongBody(WorkflowBody):
    """The body of a song: sections that continue each other, and sound effects."""

    sections: Annotated[
        Parts[Section],
        Field(
            min_length=1,
            description="The sections, in order.",
            json_schema_extra=rules.limit_by(maxItems="max_clips"),
        ),
    ]
    key: Annotated[
        str | None,
        Field(
            description="A note and a mode, such as `F# minor`; the server adds it to each prompt.",
            json_schema_extra={"pattern": KEY_NAMES},
        ),
    ] = None
    tempo: Annotated[
        float, Field(ge=30, le=300, description="Beats per minute, added to each prompt.")
    ] = 120.0
    beats_per_bar: Annotated[
        int, Field(ge=1, le=16, description="The number of beats in a bar."), WHOLE
    ] = 4
    crossfade_beats: Annotated[
        float,
        Field(
            ge=0,
            le=16,
            description="The length in beats of the crossfade between sections, which ends where "
            "the next section begins; at most half of the shortest section.",
        ),
    ] = 1.0
    effects: Annotated[
        Parts[Effect],
        Field(
            default_factory=list,
            description="Sound effects that are mixed into the song.",
            json_schema_extra=rules.limit_by(maxItems="max_clips"),
        ),
    ]
    effects_model: EffectsModel = None
    loudness: Loudness = -14.0
    distribution: Annotated[
        Distribution | None, Field(description="A second mix, compressed by EnCodec.")
    ] = None

    def build_spec(self) -> song.Song:
        """Build the specification of the song."""
        return copy_fields(
            song.Song,
            self,
            sections=[copy_fields(song.Section, one) for one in self.sections],
            effects=[copy_fields(song.Effect, one) for one in self.effects],
        )

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str | None) -> str | None:
        if key is not None and not re.fullmatch(KEY_NAMES, key):
            valid = "a note from A to G, optionally # or b, and major or minor"
            raise ValueError(f"not a key: {key!r}; write {valid}, such as C major or F# minor")
        return key


class PodcastBody(WorkflowBody):
    """The body of the music of a podcast."""

    theme: Annotated[Text, Field(description="The topic or the sound of the podcast.")]
    intro: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="The length in seconds; the default is 15, at most the server's limit.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 15.0
    outro: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="The length in seconds; the default is 10, at most the server's limit.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 10.0
    transitions: Annotated[
        int,
        Field(
            ge=0,
            le=5,
            description="The number of transitions, in this order: smooth transition, chime, "
            "whoosh, minimal tone, section divider.",
        ),
        WHOLE,
    ] = 3
    bed_gain_db: Annotated[
        float,
        Field(
            ge=-60,
            le=0,
            description="The gain in dB of the music under the voice, relative to the intro, "
            "during pauses; it is 12 dB lower during speech.",
        ),
    ] = -6.0
    effects_model: EffectsModel = None
    loudness: Loudness = -16.0

    _check_words = field_validator("theme")(check_words)

    def build_spec(self) -> podcast.Podcast:
        """Build the specification of the podcast; a length that was not given is None."""
        given = {
            name: getattr(self, name) if name in self.model_fields_set else None
            for name in ("intro", "outro")
        }
        return copy_fields(podcast.Podcast, self, **given)


class AmbienceBody(WorkflowBody):
    """The body of an ambience, which is a loop."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [rules.OUTPUT, rules.ENVIRONMENT_OR_PROMPT]}
    )

    environment: Annotated[Environment | None, Field(description="A predefined environment.")] = (
        None
    )
    prompt: Annotated[Text | None, Field(description="A text instead of `environment`.")] = None
    duration: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="The length in seconds; the default is 10, at most the server's limit.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 10.0
    loudness: Loudness = -23.0

    _check_words = field_validator("prompt")(check_words)

    def build_spec(self) -> ambience.Ambience:
        """Build the specification of the ambience; a length that was not given is None."""
        duration = self.duration if "duration" in self.model_fields_set else None
        return copy_fields(ambience.Ambience, self, duration=duration)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.environment is None) == (self.prompt is None):
            raise ValueError("give either environment or prompt")
        return self


class StyleTransferBody(WorkflowBody):
    """The body of a style transfer, which plays a melody in another style."""

    style: Annotated[Text, Field(description="A description of the new style.")]
    duration: Annotated[
        float | None,
        Field(
            ge=LOUDNESS_BLOCK_S,
            le=3600,
            description="The length in seconds; the default is the length of the file.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s"),
        ),
    ] = None
    loudness: Loudness = -14.0

    _check_words = field_validator("style")(check_words)

    def build_spec(self) -> style_transfer.StyleTransfer:
        """Build the specification of the style transfer."""
        return copy_fields(style_transfer.StyleTransfer, self)
