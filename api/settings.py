"""The ingress's `user_config`: limits, keys and tiers, which can change without a restart."""

import os
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, field_validator, model_validator

from api.audio.output import FormatName, Output
from deployments.ledger_state import Share
from deployments.settings import AnyModelSettings, StrictModel, TokenModelSettings
from engine.errors import InvalidRequest
from graph.settings import Limits

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TierName = Literal["draft", "standard", "high"]
Decoder = Literal["encodec", "mbd"]
BEST_FIRST: tuple[TierName, ...] = ("high", "standard", "draft")


class Tier(StrictModel):
    """The values of a tier for fields that a request leaves out."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """The name of a language model."""
    decoder: Decoder | None = None
    format: FormatName | None = None
    sample_rate: int | None = None
    bitrate: int | None = None
    """In kbit/s, for formats with a choice of bit rate."""

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        try:
            rate, bitrate = self.sample_rate, self.bitrate
            Output(self.format or "wav", sample_rate=rate, bitrate=bitrate).check_format()
        except InvalidRequest as error:
            raise ValueError(error.message) from error
        return self


class Tiers(StrictModel):
    """The three tiers; the defaults fit a server with one model of each kind."""

    draft: Tier = Tier(format="mp3", bitrate=64)
    standard: Tier = Tier()
    high: Tier = Tier(decoder="mbd")

    def get_tier(self, name: TierName) -> Tier:
        """Return the tier with a name."""
        tier: Tier = getattr(self, name)
        return tier

    def check_models(self, models: Sequence[AnyModelSettings]) -> None:
        """Check the models that tiers name. Raises ValueError if one is unknown."""
        known = [model.name for model in models if isinstance(model, TokenModelSettings)]
        for name in BEST_FIRST:
            wanted = self.get_tier(name).model
            if wanted is not None and wanted not in known:
                reason = f"no language model {wanted!r}; valid: {', '.join(known)}"
                raise ValueError(f"quality.{name}.model: {reason}")


class KeySettings(StrictModel):
    """The key of one user of the API, with its limits."""

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[list[Hash], Field(min_length=1)]
    """SHA-256 hashes of the key in hexadecimal; more than one while a key is replaced."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    requests_per_minute: Annotated[float | None, Field(ge=1, allow_inf_nan=False)] = None
    row_seconds: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """The limit on unfinished work, in seconds of audio; guidance counts twice."""

    def build_share(self) -> Share:
        """Build the share of the key's requests."""
        return Share(self.name, self.weight, self.requests_per_minute, self.row_seconds)


def read_environment_keys() -> list[KeySettings]:
    """Return the keys in AUDIOCRAFT_KEYS, a JSON list, for example from a Kubernetes secret.

    Raises ValidationError.
    """
    return TypeAdapter(list[KeySettings]).validate_json(os.environ.get("AUDIOCRAFT_KEYS") or "[]")


class UserConfig(Limits):
    """The settings of requests that can change while the server runs."""

    keys: tuple[KeySettings, ...] = ()
    """The keys of the API; without keys, everyone can use the API."""
    quality: Tiers = Tiers()
    """The tiers that the values of `quality` stand for."""
    config_hash: str | None = None
    """The hash of the configuration file; `/readyz` reports it to `python -m k8s wait`."""

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
        """Return this configuration with the keys of the environment. Raises ValidationError."""
        keys = [*self.keys, *read_environment_keys()]
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(own | {"keys": keys})
