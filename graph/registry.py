"""The models that this application has, and what they said about themselves."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from deployments.settings import (
    AnyModelSettings,
    DiffusionSettings,
    EnCodecSettings,
    ModelSettings,
    TokenModelSettings,
)
from engine.params import CodecInfo, LanguageModelInfo
from graph.calls import together
from graph.errors import ApiError
from graph.recovery import call_again

Model = TypeVar("Model", bound=ModelSettings)


@dataclass(frozen=True)
class Voice:
    """A language model together with the codec that decodes its tokens."""

    model: TokenModelSettings
    language_model: LanguageModelInfo
    codec: CodecInfo

    def mismatch(self) -> str | None:
        """Say why the two do not belong together, or None where they do."""
        wanted, given = self.language_model, self.codec
        for what, fits in (
            ("codebooks", wanted.codebooks <= given.codebooks),
            ("cardinality", wanted.cardinality == given.cardinality),
            ("sample_rate", wanted.sample_rate == given.sample_rate),
            ("frame_rate", wanted.frame_rate == given.frame_rate),
        ):
            if not fits:
                return (
                    f"model {self.model.name!r} does not fit codec {self.model.codec!r}: "
                    f"{what} {getattr(wanted, what)} against {getattr(given, what)}"
                )
        return None


class Registry:
    """Finds models by name or kind, and remembers how they fit together."""

    def __init__(self, models: Sequence[AnyModelSettings], handles: Mapping[str, Any]) -> None:
        self.models = {model.name: model for model in models}
        self.handles = handles
        self._voices: dict[str, Voice] = {}
        self._codecs: dict[str, CodecInfo] = {}

    def pick(self, kind: type[Model], name: str | None, field: str = "model") -> Model:
        """Return the model `name`, or the first of its kind. Raises ApiError 404."""
        of_kind = {m.name: m for m in self.models.values() if isinstance(m, kind)}
        chosen = next(iter(of_kind), None) if name is None else name
        if chosen in of_kind:
            return of_kind[chosen]
        named = kind.model_fields.get("kind")
        what = get_args(named.annotation)[0] if named else "language"
        valid = ", ".join(of_kind) or "none is configured"
        message = f"no {what} model {name!r}; valid: {valid}" if name else f"no {what}: {valid}"
        raise ApiError(404, "model_not_found", message, field)

    def knows(self, model: TokenModelSettings) -> bool:
        """Whether `voice` needs to ask nobody."""
        return model.name in self._voices

    async def voice(self, model: TokenModelSettings) -> Voice:
        """Return what the model and its codec can do. Raises ApiError 500 where they don't fit."""
        if not self.knows(model):
            language_model, codec = await asyncio.gather(
                call_again(self.handles[model.name].info),
                call_again(self.handles[model.codec].info),
            )
            voice = Voice(model, language_model, codec)
            if problem := voice.mismatch():
                raise ApiError(500, "configuration", problem)
            self._voices[model.name] = voice
        return self._voices[model.name]

    async def check(self, asleep: Set[str]) -> None:
        """Raise ApiError where a model and its codec do not fit together, of those awake."""
        await together(
            self.voice(model)
            for model in self._language_models
            if not asleep & {model.name, model.codec}
        )

    async def melody_models(self) -> list[str]:
        """Return the names of the models that follow melodies."""
        voices = await together(map(self.voice, self._language_models))
        return [voice.model.name for voice in voices if voice.language_model.melody]

    @property
    def _language_models(self) -> list[TokenModelSettings]:
        return [m for m in self.models.values() if isinstance(m, TokenModelSettings)]

    def diffusion_of(self, model: TokenModelSettings) -> DiffusionSettings:
        """Return what decodes a model's codes by diffusion. Raises ApiError 422."""
        all_of_them = [m for m in self.models.values() if isinstance(m, DiffusionSettings)]
        fitting = [m for m in all_of_them if m.codec == model.codec]
        if fitting and not self.codec_of(model).stereo:
            return fitting[0]
        reason = "is for mono models" if fitting else f"is not configured for {model.name!r}"
        message = f"decoder: multi-band diffusion {reason}; use encodec"
        raise ApiError(422, "invalid_value", message, "decoder")

    def codec_of(self, model: TokenModelSettings | DiffusionSettings) -> EnCodecSettings:
        """Return the codec whose codes a model makes or takes."""
        codec = self.models[model.codec]
        assert isinstance(codec, EnCodecSettings)
        return codec

    async def codec(self, model: EnCodecSettings | DiffusionSettings) -> CodecInfo:
        """Return what codes a model has, and of what audio."""
        if model.name not in self._codecs:
            self._codecs[model.name] = await call_again(self.handles[model.name].info)
        return self._codecs[model.name]
