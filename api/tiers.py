"""Tiers that trade time for quality, as they are configured."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from api.audio.output import FormatName, Output
from deployments.settings import AnyModelSettings, StrictModel, TokenModelSettings
from engine.errors import InvalidRequest

TierName = Literal["draft", "standard", "high"]
Decoder = Literal["encodec", "mbd"]
BEST_FIRST: tuple[TierName, ...] = ("high", "standard", "draft")


class Tier(StrictModel):
    """What a request gets of a tier where it does not say itself what it wants."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """A language model's name."""
    decoder: Decoder | None = None
    format: FormatName | None = None
    sample_rate: int | None = None
    bitrate: int | None = None
    """Kbit/s, where the format has any to choose."""

    @model_validator(mode="after")
    def _a_format_that_can(self) -> Self:
        try:
            Output(self.format or "wav", sample_rate=self.sample_rate, bitrate=self.bitrate).check()
        except InvalidRequest as error:
            raise ValueError(error.message) from error
        return self


class Tiers(StrictModel):
    """By default right for one model of each kind, with multi-band diffusion or without."""

    draft: Tier = Tier(format="mp3", bitrate=64)
    standard: Tier = Tier()
    high: Tier = Tier(decoder="mbd")

    def of(self, name: TierName) -> Tier:
        """Return one of them."""
        tier: Tier = getattr(self, name)
        return tier

    def check(self, models: Sequence[AnyModelSettings]) -> None:
        """Raise ValueError where one names a model that there is not."""
        known = [model.name for model in models if isinstance(model, TokenModelSettings)]
        for name in BEST_FIRST:
            wanted = self.of(name).model
            if wanted is not None and wanted not in known:
                reason = f"no language model {wanted!r}; valid: {', '.join(known)}"
                raise ValueError(f"quality.{name}.model: {reason}")
