"""The ingress's `user_config`: limits, keys and tiers, which can change without a restart."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    field_validator,
    model_validator,
)

from api.audio.output import FormatName, Output
from deployments.ledger_state import Share
from deployments.settings import AnyModelSettings, StrictModel, TokenModelSettings
from engine.errors import InvalidRequest
from graph.settings import Limits

WEBHOOK_SECRETS = "AUDIOCRAFT_WEBHOOK_SECRETS"
"""The environment variable with the secrets of a server without keys, separated by spaces."""
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


def check_webhook_secret(secret: SecretStr) -> SecretStr:
    """Raise ValueError where a secret is not of the form of Standard Webhooks."""
    if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", secret.get_secret_value()):
        raise ValueError("a webhook secret is `whsec_` and 24 bytes or more in base64")
    return secret


class KeySettings(StrictModel):
    """The key of one user of the API, with its limits."""

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[list[Hash], Field(min_length=1)]
    """SHA-256 hashes of the key in hexadecimal; more than one while a key is replaced."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    requests_per_minute: Annotated[float | None, Field(ge=1, allow_inf_nan=False)] = None
    row_seconds: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """The limit on unfinished work, in seconds of audio; guidance counts twice."""
    webhook_secrets: tuple[Annotated[SecretStr, AfterValidator(check_webhook_secret)], ...] = ()
    """The secrets that sign the key's webhooks, `whsec_...`; each one signs, so that the receiver
    may change from one to the next."""

    def build_share(self) -> Share:
        """Build the share of the key's requests."""
        return Share(self.name, self.weight, self.requests_per_minute, self.row_seconds)


def read_environment_keys() -> list[KeySettings]:
    """Return the keys in AUDIOCRAFT_KEYS, a JSON list, for example from a Kubernetes secret.

    Raises ValidationError.
    """
    keys = TypeAdapter(list[KeySettings], config=ConfigDict(hide_input_in_errors=True))
    return keys.validate_json(os.environ.get("AUDIOCRAFT_KEYS") or "[]")


def read_webhook_secrets() -> list[str]:
    """Return the webhook secrets of a server without keys. Raises ValueError if one is invalid."""
    secrets = os.environ.get(WEBHOOK_SECRETS, "").split()
    try:
        return [check_webhook_secret(SecretStr(one)).get_secret_value() for one in secrets]
    except ValueError as error:
        raise ValueError(f"{WEBHOOK_SECRETS}: {error}") from error


class UserConfig(Limits):
    """The settings of requests that can change while the server runs."""

    model_config = ConfigDict(hide_input_in_errors=True)

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
        secrets = [one.get_secret_value() for key in keys for one in key.webhook_secrets]
        for what, values in (("name", names), ("sha256", hashes), ("webhook secret", secrets)):
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {what}")
        return keys

    @cached_property
    def keys_by_name(self) -> Mapping[str, KeySettings]:
        """The keys by their names."""
        return {key.name: key for key in self.keys}

    @cached_property
    def keys_by_hash(self) -> Mapping[str, KeySettings]:
        """The keys by each of their hashes."""
        return {one: key for key in self.keys for one in key.sha256}

    def add_environment_keys(self) -> Self:
        """Return this configuration with the keys of the environment. Raises ValidationError."""
        keys = [*self.keys, *read_environment_keys()]
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate(own | {"keys": keys})
