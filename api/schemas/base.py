"""The base classes of request bodies: strict validation, and the fields of sampling."""

import secrets
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo, ValidatorFunctionWrapHandler

from deployments.settings import StrictModel
from engine.params import LEAST_TEMPERATURE, GenerationParams


def _convert_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_convert_whole)
"""Accepts a float such as 3.0 as an integer, as JSON Schema does."""
MAX_ITEMS = 1000
"""The largest list of parts in any body; `max_clips` is lower or equal."""
Item = TypeVar("Item")
Checked = Annotated[list[Item], Field(fail_fast=True)]
"""A list that is checked up to its first error, so that an error costs no more than a success."""
Parts = Annotated[Checked[Item], Field(max_length=MAX_ITEMS)]
"""A list of parts of a body."""
ModelName = Annotated[str | None, Field(description="The name of a model in /v1/models.")]
Seed = Annotated[
    int | None,
    Field(ge=0, le=2**63 - 1, description="The same seed gives the same audio; default: random."),
    WHOLE,
]


class RequestModel(StrictModel):
    """A request body without coercion and unknown fields; its errors name the valid range."""

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
    """The parameters of sampling, with AudioCraft's names and defaults."""

    temperature: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="The sampling temperature: 0 for greedy decoding, or at least 0.01.",
            json_schema_extra={"not": {"exclusiveMinimum": 0, "exclusiveMaximum": 0.01}},
        ),
    ] = 1.0
    top_k: Annotated[
        int,
        Field(ge=0, le=65536, description="Sample from the k most likely codes; 0: from all."),
        WHOLE,
    ] = 250
    top_p: Annotated[
        float, Field(ge=0, le=1, description="Nucleus sampling: a value above 0 replaces `top_k`.")
    ] = 0.0
    seed: Seed = None
    model: ModelName = None

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float) -> float:
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"must be 0 (greedy) or at least {LEAST_TEMPERATURE:g}")
        return temperature

    def build_sampling_params(self, text: str, frames: int) -> GenerationParams:
        """Build the engine's parameters; without a seed, choose a random one."""
        return GenerationParams(
            text=text,
            frames=frames,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


class RepeatableBody(SamplingBody):
    """The sampling parameters of a request whose whole answer can be cached."""

    cache: Annotated[
        bool, Field(description="Whether a cached answer is allowed, for requests with a seed.")
    ] = True

    @property
    def repeatable(self) -> bool:
        """Whether equal bodies have equal answers, and a cached answer is allowed."""
        return self.cache and self.seed is not None
