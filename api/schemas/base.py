"""Request bodies, strict: no coercion, no unknown field, and errors that say the range."""

from typing import Any

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo, ValidatorFunctionWrapHandler

from deployments.settings import StrictModel


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Makes 3.0 an integer, as JSON Schema has it and some languages write it."""


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
