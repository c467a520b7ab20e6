"""Bodies of requests, strict; they become `engine.params`."""

import secrets
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo, ValidatorFunctionWrapHandler

from deployments.settings import StrictModel
from engine.params import GenerationParams
from graph.errors import ApiError
from graph.pipeline import Voice
from graph.settings import Limits


class RequestModel(StrictModel):
    """A request body: no coercion, no unknown fields, and errors that say the range."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _say_the_range(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            allowed = _range(cls.model_fields[info.field_name or ""].metadata)
            if not allowed:
                raise
            reason = error.errors()[0]["msg"]
            raise PydanticCustomError(
                "out_of_range",
                "{reason}; allowed: {allowed}",
                {"reason": reason, "allowed": allowed},
            ) from error


def _range(constraints: list[Any]) -> str:
    words = []
    for constraint in constraints:
        match constraint:
            case Ge(bound):
                words.append(f"from {bound}")
            case Gt(bound):
                words.append(f"above {bound}")
            case Le(bound):
                words.append(f"to {bound}")
    return " ".join(words)


class GenerateBody(RequestModel):
    """Text to audio, with AudioCraft's names and defaults."""

    text: Annotated[str, Field(description="What to hear.", examples=["calm piano, slow jazz"])]
    duration: Annotated[
        float, Field(gt=0, le=3600, description="Seconds, within what the model allows.")
    ] = 10.0
    temperature: Annotated[float, Field(ge=0, le=10, description="0 decodes greedily.")] = 1.0
    top_k: Annotated[
        int, Field(ge=0, le=65536, description="Sample among the k likeliest; 0: among all.")
    ] = 250
    top_p: Annotated[
        float, Field(ge=0, le=1, description="Above 0, replaces top_k: nucleus sampling.")
    ] = 0.0
    cfg_coef: Annotated[
        float, Field(ge=0, le=20, description="Classifier-free guidance: how closely to follow.")
    ] = 3.0
    seed: Annotated[
        int | None,
        Field(ge=0, le=2**63 - 1, description="Same seed, same audio. Drawn if left out."),
    ] = None
    model: Annotated[str | None, Field(description="A name from /v1/models.")] = None

    @field_validator("temperature")
    @classmethod
    def _divides(cls, temperature: float) -> float:
        if 0 < temperature < 0.01:
            raise ValueError("must be 0 (greedy) or at least 0.01")
        return temperature

    @field_validator("text")
    @classmethod
    def _has_words(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("must be valid Unicode, without lone surrogates") from None
        return text

    def params(self, voice: Voice, limits: Limits) -> GenerationParams:
        """Return the engine's parameters. Raises ApiError where model or limits allow less."""
        if len(self.text) > limits.max_text_chars:
            message = f"text: {len(self.text)} characters; allowed: 1 to {limits.max_text_chars}"
            raise ApiError(422, "invalid_value", message, "text")
        shortest = 1 / voice.codec.frame_rate
        longest = limits.max_duration_s
        if not shortest <= self.duration <= longest:
            message = f"duration: {self.duration:g} s; allowed: from {shortest:g} to {longest:g} s"
            raise ApiError(422, "invalid_value", message, "duration")
        return GenerationParams(
            text=self.text,
            frames=int(self.duration * voice.codec.frame_rate),
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            guidance_scale=self.cfg_coef,
        )
