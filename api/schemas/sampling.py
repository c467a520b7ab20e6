"""How codes are drawn: what every request to a language model may say."""

import secrets
from typing import Annotated

from pydantic import Field, field_validator

from api.schemas.base import WHOLE, RequestModel
from engine.params import GenerationParams


class DrawingBody(RequestModel):
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
    def _divides(cls, temperature: float) -> float:
        if 0 < temperature < 0.01:
            raise ValueError("must be 0 (greedy) or at least 0.01")
        return temperature

    def drawn(self, text: str, frames: int) -> GenerationParams:
        """Return the engine's parameters; a seed is drawn where none is given."""
        return GenerationParams(
            text=text,
            frames=frames,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


class RepeatableBody(DrawingBody):
    """The same of what is answered whole: with a seed it has but one answer."""

    cache: Annotated[
        bool, Field(description="Whether an answer that was kept will do, where a seed is given.")
    ] = True

    @property
    def repeatable(self) -> bool:
        """Whether the same body has but one answer, and one that was kept will do."""
        return self.cache and self.seed is not None
