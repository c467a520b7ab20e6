"""Request bodies: strict, with errors that say the range, and the fields of sampling."""

import secrets
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo, ValidatorFunctionWrapHandler

from deployments.settings import StrictModel
from engine.params import GenerationParams


def _convert_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_convert_whole)
"""Makes 3.0 an integer, as JSON Schema has it and some languages write it."""


class RequestModel(StrictModel):
    """A request body: no coercion, no unknown fields, and errors that say the range."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _explain_range(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            allowed = _describe_range(cls.model_fields[info.field_name or ""].metadata)
            if not allowed:
                raise
            reason = error.errors()[0]["msg"]
            raise PydanticCustomError(
                "out_of_range",
                "{reason}; allowed: {allowed}",
                {"reason": reason, "allowed": allowed},
            ) from error


def _describe_range(constraints: list[Any]) -> str:
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


class SamplingBody(RequestModel):
    """How codes are drawn, with AudioCraft's names and defaults."""

    temperature: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="0 decodes greedily; else at least 0.01.",
            json_schema_extra={"not": {"exclusiveMinimum": 0, "exclusiveMaximum": 0.01}},
        ),
    ] = 1.0
    top_k: Annotated[
        int,
        Field(ge=0, le=65536, description="Sample among the k likeliest; 0: among all."),
        WHOLE,
    ] = 250
    top_p: Annotated[
        float, Field(ge=0, le=1, description="Above 0, replaces top_k: nucleus sampling.")
    ] = 0.0
    seed: Annotated[
        int | None,
        Field(ge=0, le=2**63 - 1, description="Same seed, same audio. Drawn if left out."),
        WHOLE,
    ] = None
    model: Annotated[str | None, Field(description="A name from /v1/models.")] = None

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float) -> float:
        if 0 < temperature < 0.01:
            raise ValueError("must be 0 (greedy) or at least 0.01")
        return temperature

    def build_sampling_params(self, text: str, frames: int) -> GenerationParams:
        """Return the engine's parameters; a seed is drawn where none is given."""
        return GenerationParams(
            text=text,
            frames=frames,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


class RepeatableBody(SamplingBody):
    """The same of what is answered whole: with a seed it has but one answer."""

    cache: Annotated[
        bool, Field(description="Whether an answer that was kept will do, where a seed is given.")
    ] = True

    @property
    def repeatable(self) -> bool:
        """Whether the same body has but one answer, and one that was kept will do."""
        return self.cache and self.seed is not None
