"""A MusicGen or AudioGen language model, ready to serve: checkpoint, conditions and engine."""

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np
from audiocraft.models.lm import LMModel
from numpy.typing import NDArray

from engine.cache import slot_bytes
from engine.checkpoints import load_language_model
from engine.conditioning import Conditions, encode, text_attributes
from engine.decoder import check_supported
from engine.engine import Engine, EngineSettings
from engine.errors import NoRoom
from engine.loop import EngineLoop
from engine.params import GenerationParams, LanguageModelInfo
from engine.request import Request
from engine.sequence import Sequence, Windowing

CACHED_CONDITIONS = 256

logger = logging.getLogger(__name__)


class LanguageModel:
    """Turns parameters into requests and runs them on an engine of its own."""

    def __init__(
        self,
        lm: LMModel,
        settings: EngineSettings,
        *,
        frame_rate: float,
        stride_seconds: float,
        take: bool = False,
    ) -> None:
        self._lm = lm
        check_supported(lm)
        max_seconds = float(lm.cfg.dataset.segment_duration)
        self.info = LanguageModelInfo(
            codebooks=lm.num_codebooks,
            cardinality=lm.card,
            sample_rate=int(lm.cfg.sample_rate),
            frame_rate=frame_rate,
            max_seconds=max_seconds,
        )
        self._windowing = Windowing(
            delays=lm.pattern_provider.delays,
            special=lm.special_token_id,
            max_frames=int(max_seconds * frame_rate),
            stride_frames=int(min(stride_seconds, 0.9 * max_seconds) * frame_rate),
        )
        self._settings = settings = self._sized(settings)
        self.loop = EngineLoop(Engine(lm, settings, take=take))
        self.conditions = lru_cache(CACHED_CONDITIONS)(self._conditions)

    @classmethod
    def load(
        cls,
        source: str,
        settings: EngineSettings,
        *,
        device: str,
        frame_rate: float,
        stride_seconds: float,
        text_encoder: str | None = None,
    ) -> "LanguageModel":
        """Load a checkpoint (see `engine.checkpoints`) and allocate its slots.

        Raises a CheckpointError, or NoRoom where not even one slot fits the budget.
        """
        dtype = "float32" if device == "cpu" else settings.precision
        lm = load_language_model(source, device=device, dtype=dtype, text_encoder=text_encoder)
        pace = {"frame_rate": frame_rate, "stride_seconds": stride_seconds}
        return cls(lm, settings, **pace, take=True)

    def _sized(self, settings: EngineSettings) -> EngineSettings:
        """Fit positions to the model's windows, and slots to the budget."""
        prefix = 0
        if "self_wav" in self._lm.condition_provider.conditioners:
            chroma = self._lm.condition_provider.conditioners["self_wav"]
            prefix = chroma.chroma_len + settings.max_text_tokens
        positions = prefix + self._windowing.max_frames + max(self._windowing.delays) + 1
        each = slot_bytes(self._lm, positions, settings.max_text_tokens, settings.precision)
        slots = min(settings.max_slots, int(settings.cache_gb * 1e9 / each))
        figures = f"a slot takes {each / 1e6:.1f} MB of cache, the budget is {settings.cache_gb} GB"
        if slots < 1:
            raise NoRoom(f"{figures}: raise cache_gb to {each / 1e9:.2f} or more")
        logger.info("%s: %d slots", figures, slots)
        return replace(settings, max_slots=slots, max_positions=positions)

    def _conditions(self, text: str) -> Conditions:
        """Encode a text; some milliseconds to seconds, so not on the event loop."""
        return encode(self._lm, text_attributes(self._lm, text))

    def request(
        self,
        params: GenerationParams,
        conditions: Conditions,
        variation: int = 0,
        prompt: NDArray[np.int16] | None = None,
    ) -> Request:
        """Make a request. Raises InvalidRequest where the text is too long for a slot."""
        self.loop.engine.check_text(conditions)
        codes = None if prompt is None else prompt.astype(np.int64)
        return Request(
            params, conditions, Sequence(self._windowing, params.frames, codes), variation
        )
