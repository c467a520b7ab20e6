"""Bodies of workflows; `graph.workflows` plans what they ask for."""

import re
from dataclasses import fields
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.schemas import rules
from api.schemas.base import WHOLE, RepeatableBody, RequestModel
from api.schemas.generation import Text, check_words
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
        description="Of the mix, in LUFS; less where its true peak would be above -1 dB.",
    ),
]
EffectsModel = Annotated[
    str | None, Field(description="A name from /v1/models; by default the first sound model.")
]


class WorkflowBody(RepeatableBody, FileBody):
    """What all workflows take."""

    model_config = ConfigDict(json_schema_extra={"allOf": [rules.OUTPUT]})

    guidance_scale: Annotated[
        float, Field(ge=0, le=20, description="Classifier-free: how closely to follow the text.")
    ] = 3.0


Spec = TypeVar("Spec")


def copy_fields(kind: type[Spec], body: RequestModel, **others: Any) -> Spec:
    """Build a dataclass of `graph.workflows` from a body's fields of the same names."""
    names = [field.name for field in fields(kind) if field.name not in others]  # type: ignore[arg-type]
    return kind(**{name: getattr(body, name) for name in names}, **others)


class Section(RequestModel):
    """A part of a song."""

    model_config = ConfigDict(json_schema_extra=rules.BARS_OR_SECONDS)

    name: Annotated[str, Field(min_length=1, max_length=100, description="Such as `verse`.")]
    prompt: Text
    bars: Annotated[int | None, Field(ge=1, le=1000, description="How long it is."), WHOLE] = None
    seconds: Annotated[
        float | None,
        Field(
            gt=0, le=3600, description="The same, made the nearest number of bars, at least one."
        ),
    ] = None

    _check_words = field_validator("name", "prompt")(check_words)

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.bars is None) == (self.seconds is None):
            raise ValueError("give either bars or seconds")
        return self


class Effect(RequestModel):
    """A sound that is laid over a song."""

    prompt: Text
    at: Annotated[float, Field(ge=0, le=3600, description="Seconds from the song's beginning.")]
    duration: Annotated[
        float,
        Field(
            ge=LOUDNESS_BLOCK_S,
            le=3600,
            description="Seconds; it ends before the song does.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s"),
        ),
    ] = 2.0
    gain_db: Annotated[
        float, Field(ge=-60, le=12, description="0 is as loud as the music of the song.")
    ] = -6.0

    _check_words = field_validator("prompt")(check_words)


class Distribution(RequestModel):
    """A second mix, as small as EnCodec makes it."""

    bandwidth: Annotated[
        float, Field(gt=0, le=1000, description="One that the codec has, in kbit/s.")
    ]


class SongBody(WorkflowBody):
    """Sections that go on from each other, and effects over them."""

    sections: Annotated[
        list[Section],
        Field(
            min_length=1,
            description="One after the other.",
            json_schema_extra=rules.limit_by(maxItems="max_clips"),
        ),
    ]
    key: Annotated[
        str | None,
        Field(
            description="A note and a mode, such as `F# minor`; added to each prompt.",
            json_schema_extra={"pattern": KEY_NAMES},
        ),
    ] = None
    tempo: Annotated[
        float, Field(ge=30, le=300, description="Beats a minute; added to each prompt.")
    ] = 120.0
    beats_per_bar: Annotated[
        int, Field(ge=1, le=16, description="Sections begin and end with bars."), WHOLE
    ] = 4
    crossfade_beats: Annotated[
        float,
        Field(
            ge=0,
            le=16,
            description="Of one section into the next, before the bar with which that begins; at "
            "most half of the shortest section.",
        ),
    ] = 1.0
    effects: Annotated[
        list[Effect],
        Field(
            default_factory=list,
            description="Sounds laid over it.",
            json_schema_extra=rules.limit_by(maxItems="max_clips"),
        ),
    ]
    effects_model: EffectsModel = None
    loudness: Loudness = -14.0
    distribution: Annotated[
        Distribution | None, Field(description="A second mix, through the music model's EnCodec.")
    ] = None

    def build_spec(self) -> song.Song:
        """Return the song that is asked for."""
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
            valid = "a note from A to G, # or b after it where it has one, and major or minor"
            raise ValueError(f"no {key!r}; write {valid}, such as C major, F# minor or Bb major")
        return key


class PodcastBody(WorkflowBody):
    """The music of a podcast."""

    theme: Annotated[Text, Field(description="What it is about, or how it is to sound.")]
    intro: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="Seconds; by default 15, or all that the server allows.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 15.0
    outro: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="Seconds; by default 10, or all that the server allows.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 10.0
    transitions: Annotated[
        int,
        Field(
            ge=0,
            le=5,
            description="How many: smooth transition, chime, whoosh, minimal tone, section "
            "divider, in this order.",
        ),
        WHOLE,
    ] = 3
    bed_gain_db: Annotated[
        float,
        Field(
            ge=-60,
            le=0,
            description="Of the music under the voice while nobody speaks, beside the intro; 12 "
            "dB less while somebody does.",
        ),
    ] = -6.0
    effects_model: EffectsModel = None
    loudness: Loudness = -16.0

    _check_words = field_validator("theme")(check_words)

    def build_spec(self) -> podcast.Podcast:
        """Return the podcast that is asked for; a length that was not given is None."""
        given = {
            name: getattr(self, name) if name in self.model_fields_set else None
            for name in ("intro", "outro")
        }
        return copy_fields(podcast.Podcast, self, **given)


class AmbienceBody(WorkflowBody):
    """A loop of an environment."""

    model_config = ConfigDict(
        json_schema_extra={"allOf": [rules.OUTPUT, rules.ENVIRONMENT_OR_PROMPT]}
    )

    environment: Annotated[
        Environment | None, Field(description="One that has a prompt of its own.")
    ] = None
    prompt: Annotated[Text | None, Field(description="What to hear instead.")] = None
    duration: Annotated[
        float,
        Field(
            ge=1,
            le=3600,
            description="Seconds; by default 10, or all that the server allows.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s", default="max_duration_s"),
        ),
    ] = 10.0
    loudness: Loudness = -23.0

    _check_words = field_validator("prompt")(
        lambda text: text if text is None else check_words(text)
    )

    def build_spec(self) -> ambience.Ambience:
        """Return the ambience that is asked for; a length that was not given is None."""
        duration = self.duration if "duration" in self.model_fields_set else None
        return copy_fields(ambience.Ambience, self, duration=duration)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.environment is None) == (self.prompt is None):
            raise ValueError("give either environment or prompt")
        return self


class StyleTransferBody(WorkflowBody):
    """A melody, to be heard in another style."""

    style: Annotated[Text, Field(description="What to hear.")]
    duration: Annotated[
        float | None,
        Field(
            ge=LOUDNESS_BLOCK_S,
            le=3600,
            description="Seconds; by default the file's, whose beginning is followed.",
            json_schema_extra=rules.limit_by(maximum="max_duration_s"),
        ),
    ] = None
    loudness: Loudness = -14.0

    _check_words = field_validator("style")(check_words)

    def build_spec(self) -> style_transfer.StyleTransfer:
        """Return the style transfer that is asked for."""
        return copy_fields(style_transfer.StyleTransfer, self)
