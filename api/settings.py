"""The ingress's `user_config`: limits, API keys and qualities; it changes without a restart."""

import os
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from api.audio.output import FormatName, Output
from deployments.accounts import Share
from deployments.settings import AnyModelSettings, StrictModel, TokenModelSettings
from engine.errors import InvalidRequest
from graph.settings import Limits

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
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
    def _check_format(self) -> Self:
        try:
            Output(
                self.format or "wav", sample_rate=self.sample_rate, bitrate=self.bitrate
            ).check_format()
        except InvalidRequest as error:
            raise ValueError(error.message) from error
        return self


class Tiers(StrictModel):
    """By default right for one model of each kind, with multi-band diffusion or without."""

    draft: Tier = Tier(format="mp3", bitrate=64)
    standard: Tier = Tier()
    high: Tier = Tier(decoder="mbd")

    def get_tier(self, name: TierName) -> Tier:
        """Return the tier of a name."""
        tier: Tier = getattr(self, name)
        return tier

    def check_models(self, models: Sequence[AnyModelSettings]) -> None:
        """Raise ValueError where one names a model that there is not."""
        known = [model.name for model in models if isinstance(model, TokenModelSettings)]
        for name in BEST_FIRST:
            wanted = self.get_tier(name).model
            if wanted is not None and wanted not in known:
                reason = f"no language model {wanted!r}; valid: {', '.join(known)}"
                raise ValueError(f"quality.{name}.model: {reason}")


class KeySettings(StrictModel):
    """One user of the API."""

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[list[Hash], Field(min_length=1)]
    """Of the key, in hexadecimal; several while keys are changed."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    requests_per_minute: Annotated[float | None, Field(ge=1, allow_inf_nan=False)] = None
    row_seconds: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Outstanding at once: seconds of audio, twice under guidance."""

    def build_share(self) -> Share:
        """Return what its requests may have."""
        return Share(self.name, self.weight, self.requests_per_minute, self.row_seconds)


def read_environment_keys() -> list[KeySettings]:
    """Return the keys in AUDIOCRAFT_KEYS, a JSON list such as a Kubernetes secret holds.

    Raises ValidationError.
    """
    return TypeAdapter(list[KeySettings]).validate_json(os.environ.get("AUDIOCRAFT_KEYS") or "[]")


class UserConfig(Limits):
    """Everything about requests that may change while the server runs."""

    keys: tuple[KeySettings, ...] = ()
    """The API's keys; without any, everyone may use it."""
    quality: Tiers = Tiers()
    """What the values of `quality` stand for."""
    config_hash: str | None = None
    """The hash of the file that this is from; `/readyz` reports it to `python -m k8s wait`."""

    @field_validator("keys")
    @classmethod
    def _check_unique(cls, keys: tuple[KeySettings, ...]) -> tuple[KeySettings, ...]:
        names = [key.name for key in keys]
        hashes = [one for key in keys for one in key.sha256]
        for what, values in (("name", names), ("sha256", hashes)):
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {what}")
        return keys

    def add_environment_keys(self) -> Self:
        """Return this configuration with the environment's keys. Raises ValidationError."""
        keys = [*self.keys, *read_environment_keys()]
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(own | {"keys": keys})
