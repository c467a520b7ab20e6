"""Finds the application's models by name or kind, with the properties that they report."""

import asyncio
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from deployments.settings import (
    AnyModelSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    ModelSettings,
    MusicGenSettings,
    Role,
    TokenModelSettings,
)
from engine.params import CodecInfo, DiscriminatorsInfo, LanguageModelInfo
from graph.calls import call_again, gather_all
from graph.errors import ApiError

Model = TypeVar("Model", bound=ModelSettings)


@dataclass(frozen=True)
class ModelWithCodec:
    """A language model with the codec that decodes its codes: their settings and properties."""

    settings: TokenModelSettings
    language_model: LanguageModelInfo
    codec: CodecInfo

    def find_mismatch(self) -> str | None:
        """Return why the two do not fit together, or None where they do."""
        wanted, given = self.language_model, self.codec
        for what, fits in (
            ("codebooks", wanted.codebooks <= given.codebooks),
            ("cardinality", wanted.cardinality == given.cardinality),
            ("sample_rate", wanted.sample_rate == given.sample_rate),
            ("frame_rate", wanted.frame_rate == given.frame_rate),
        ):
            if not fits:
                return (
                    f"model {self.settings.name!r} does not fit codec {self.settings.codec!r}: "
                    f"{what} {getattr(wanted, what)} against {getattr(given, what)}"
                )
        return None


class Registry:
    """Finds models, and remembers the properties that their deployments have reported."""

    def __init__(self, models: Sequence[AnyModelSettings], handles: Mapping[str, Any]) -> None:
        self.models = {model.name: model for model in models}
        self.handles = handles
        self._pairs: dict[str, ModelWithCodec] = {}
        self._codecs: dict[str, CodecInfo] = {}
        self._discriminators: dict[str, DiscriminatorsInfo] = {}

    def find_model(
        self, kind: type[Model], name: str | None, field: str = "model", role: Role | None = None
    ) -> Model:
        """Return the model `name`, or the first of its kind and role. Raises ApiError 404."""
        fitting = {
            model.name: model
            for model in self.models.values()
            if isinstance(model, kind) and role in (None, getattr(model, "role", None))
        }
        chosen = next(iter(fitting), None) if name is None else name
        if chosen in fitting:
            return fitting[chosen]
        named = kind.model_fields.get("kind")
        what = role or (get_args(named.annotation)[0] if named else "language")
        valid = ", ".join(fitting) or "none is configured"
        message = f"no {what} model {name!r}; valid: {valid}" if name else f"no {what}: {valid}"
        raise ApiError(404, "model_not_found", message, field)

    def is_known(self, model: TokenModelSettings) -> bool:
        """Return whether the properties of a model and its codec are known without asking them."""
        return model.name in self._pairs

    async def get_model_with_codec(self, model: TokenModelSettings) -> ModelWithCodec:
        """Return a model with its codec. Raises ApiError 500 where the two do not fit together."""
        if not self.is_known(model):
            language_model, codec = await asyncio.gather(
                call_again(self.handles[model.name].info),
                call_again(self.handles[model.codec].info),
            )
            pair = ModelWithCodec(model, language_model, codec)
            if problem := pair.find_mismatch():
                raise ApiError(500, "configuration", problem)
            self._pairs[model.name] = pair
        return self._pairs[model.name]

    async def check_models(self, asleep: Set[str]) -> None:
        """Check that models and codecs fit, except sleeping models. Raises ApiError."""
        await gather_all(
            self.get_model_with_codec(model)
            for model in self._language_models
            if not asleep & {model.name, model.codec}
        )

    def list_melody_models(self) -> list[str]:
        """Return the names of the models that are known to follow melodies; none is asked."""
        known = (self._pairs.get(model.name) for model in self._language_models)
        return [pair.settings.name for pair in known if pair and pair.language_model.melody]

    async def find_melody_model(self) -> ModelWithCodec | None:
        """Return the first model that follows melodies; the models after it are not asked."""
        for model in self._language_models:
            if isinstance(model, MusicGenSettings):
                pair = await self.get_model_with_codec(model)
                if pair.language_model.melody:
                    return pair
        return None

    @property
    def _language_models(self) -> list[TokenModelSettings]:
        return [m for m in self.models.values() if isinstance(m, TokenModelSettings)]

    def find_diffusion(self, model: TokenModelSettings) -> DiffusionSettings:
        """Return the diffusion model for a model's codes. Raises ApiError 422 if there is none."""
        all_of_them = [m for m in self.models.values() if isinstance(m, DiffusionSettings)]
        fitting = [m for m in all_of_them if m.codec == model.codec]
        if fitting and not self.get_codec(model).stereo:
            return fitting[0]
        reason = "is for mono models" if fitting else f"is not configured for {model.name!r}"
        message = f"decoder: multi-band diffusion {reason}; use encodec"
        raise ApiError(422, "invalid_value", message, "decoder")

    def get_codec(self, model: TokenModelSettings | DiffusionSettings) -> EnCodecSettings:
        """Return the codec that a model's codes belong to."""
        codec = self.models[model.codec]
        assert isinstance(codec, EnCodecSettings)
        return codec

    async def describe_codec(self, model: EnCodecSettings | DiffusionSettings) -> CodecInfo:
        """Return the properties of a codec, or of the codes that a diffusion model takes."""
        if model.name not in self._codecs:
            self._codecs[model.name] = await call_again(self.handles[model.name].info)
        return self._codecs[model.name]

    async def describe_discriminators(self, model: DiscriminatorsSettings) -> DiscriminatorsInfo:
        """Return the rate and channels that discriminators take."""
        if model.name not in self._discriminators:
            self._discriminators[model.name] = await call_again(self.handles[model.name].info)
        return self._discriminators[model.name]


def check_follows_melody(pair: ModelWithCodec, registry: Registry, field: str = "melody") -> None:
    """Check that a model follows melodies; the message names those that are known to."""
    if not pair.language_model.melody:
        able = ", ".join(registry.list_melody_models()) or "none that is known yet"
        message = f"{field}: {pair.settings.name!r} follows none; models that do: {able}"
        raise ApiError(422, "invalid_value", message, field)


def find_language_model(
    registry: Registry, name: str | None, role: Role, field: str = "model"
) -> TokenModelSettings:
    """Return the language model `name`, or the first of a role. Raises ApiError 404."""
    wanted = role if name is None else None
    return registry.find_model(TokenModelSettings, name, field, wanted)


def count_frames(seconds: float, pair: ModelWithCodec) -> int:
    """Return the smallest number of frames that lasts `seconds`."""
    return max(1, math.ceil(round(seconds * pair.codec.frame_rate, 6)))
