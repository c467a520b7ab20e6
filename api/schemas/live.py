"""The messages of a live session, from the client and from the server."""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from api.schemas.base import RequestModel, SamplingBody
from api.schemas.generation import GuidanceScale, check_words
from engine.params import GenerationParams
from graph.errors import ApiError, ErrorDetail
from graph.registry import ModelWithCodec
from graph.settings import Limits, check_text

MOODS = (
    (0.8, "intense battle music"),
    (0.5, "suspense music"),
)
"""Pairs of tension and prompt: the first pair whose tension is exceeded is used."""
CALM = "peaceful ambient music"


def describe_state(tension: float, location: str | None) -> str:
    """Return the prompt for a state of a game; `tension` is from 0 to 1."""
    mood = next((mood for above, mood in MOODS if tension > above), CALM)
    return f"{mood}, {location}" if location else mood


LONGEST_S = 10.0


class LivePrompt(RequestModel):
    """The fields that choose the audio: a prompt, or the state of a game."""

    prompt: str | None = None
    tension: Annotated[float | None, Field(ge=0, le=1)] = None
    location: str | None = None

    _check_words = field_validator("prompt", "location")(check_words)

    @model_validator(mode="after")
    def _check_location(self) -> Self:
        if self.location is not None and self.tension is None:
            raise ValueError("location belongs to tension; give both")
        return self

    def choose_text(self, limits: Limits) -> str | None:
        """Return the prompt, or None without one. Raises ApiError 422 if it is too long."""
        for field in ("prompt", "location"):
            check_text(getattr(self, field) or "", limits, field)
        return self.prompt if self.tension is None else describe_state(self.tension, self.location)


class Start(LivePrompt, SamplingBody):
    """The client's first message, which starts the session."""

    guidance_scale: GuidanceScale = 3.0
    passage: Annotated[float, Field(ge=1, le=LONGEST_S)] = 4.0
    """The length of one passage, in seconds."""

    @model_validator(mode="after")
    def _check_one_prompt(self) -> Self:
        if (self.prompt is None) == (self.tension is None):
            raise ValueError("give either prompt or tension")
        return self

    def build_params(self, text: str, pair: ModelWithCodec) -> GenerationParams:
        """Build the parameters of the first passage. Raises ApiError 422."""
        longest = min(LONGEST_S, pair.language_model.max_seconds / 2)
        if self.passage > longest:
            message = f"passage: {self.passage:g} s; allowed for this model: 1 to {longest:g} s"
            raise ApiError(422, "invalid_value", message, "passage")
        drawn = self.build_sampling_params(text, int(self.passage * pair.codec.frame_rate))
        return replace(drawn, guidance_scale=self.guidance_scale)


class LiveMessage(LivePrompt):
    """Any later message of the client."""

    played: Annotated[float | None, Field(ge=0)] = None
    stop: Literal[True] | None = None

    @model_validator(mode="after")
    def _check_one_field(self) -> Self:
        given = [self.prompt, self.tension, self.played, self.stop]
        if len(given) - given.count(None) != 1:
            raise ValueError("give one of prompt, tension, played, stop")
        return self


class Started(BaseModel):
    """The server's first message: the session has started."""

    type: Literal["started"] = "started"
    model: str
    seed: int
    sample_rate: int
    channels: int
    format: Literal["s16le"] = "s16le"
    passage: float
    ahead: float
    request_id: str


class Passage(BaseModel):
    """A new passage follows this prompt from `start`, in seconds of the session's audio."""

    type: Literal["passage"] = "passage"
    number: int
    start: float
    duration: float
    prompt: str


class LiveError(BaseModel):
    """An error of the session."""

    type: Literal["error"] = "error"
    error: ErrorDetail
    request_id: str
