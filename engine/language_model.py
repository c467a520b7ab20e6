"""Combines checkpoint, conditioning and engine into a MusicGen or AudioGen language model."""

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np
from audiocraft.models.lm import LMModel

from engine import fence
from engine.cache import slot_bytes
from engine.checkpoints import load_language_model
from engine.conditioning import (
    Conditions,
    build_attributes,
    count_melody_positions,
    cut_melody_window,
    encode_conditions,
    takes_melody,
)
from engine.decoder import check_supported
from engine.engine import Engine, EngineSettings
from engine.errors import InvalidRequest, NoRoom
from engine.loop import EngineLoop
from engine.params import Codes, GenerationParams, LanguageModelInfo, Waveform
from engine.request import Request
from engine.sampling import check_temperature
from engine.sequence import Sequence, Windowing
from engine.windows import (
    check_stride,
    count_positions,
    count_stride_frames,
    cut_melody,
    find_window_starts,
)

CACHED_TEXTS, CACHED_MELODIES = 256, 16
CPU_CACHE_GB = 2.0
"""Memory for the caches on a CPU if the settings do not say how much."""

logger = logging.getLogger(__name__)


class LanguageModel:
    """A language model that builds requests from parameters and runs them on its own engine."""

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
        melody = takes_melody(lm)
        self.info = LanguageModelInfo(
            codebooks=lm.num_codebooks,
            cardinality=lm.card,
            sample_rate=int(lm.cfg.sample_rate),
            frame_rate=frame_rate,
            max_seconds=max_seconds,
            melody=melody,
            stride_seconds=min(stride_seconds, 0.6 * max_seconds),
            delay_frames=max(lm.pattern_provider.delays),
            prefix_positions=count_melody_positions(lm) if melody else 0,
        )
        self._windowing = Windowing(
            delays=lm.pattern_provider.delays,
            special=lm.special_token_id,
            max_frames=int(max_seconds * frame_rate),
            stride_frames=count_stride_frames(self.info, None),
        )
        self._settings = settings = self._fit_settings(settings)
        self.loop = EngineLoop(Engine(lm, settings, take=take))
        self.encode_text = lru_cache(CACHED_TEXTS)(self._encode_text)
        self.encode_melody = lru_cache(CACHED_MELODIES)(self._encode_melody)

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
        stem_separation: bool = False,
    ) -> "LanguageModel":
        """Load a checkpoint (see `engine.checkpoints`) and allocate its slots.

        Raises a CheckpointError, or NoRoom if the budget is too small for one slot.
        """
        dtype = "float32" if device == "cpu" else settings.precision
        with fence.within(device, settings.gpu_share):
            lm = load_language_model(
                source,
                device=device,
                dtype=dtype,
                text_encoder=text_encoder,
                stem_separation=stem_separation,
            )
        pace = {"frame_rate": frame_rate, "stride_seconds": stride_seconds}
        return cls(lm, settings, **pace, take=True)

    def _fit_settings(self, settings: EngineSettings) -> EngineSettings:
        """Set the positions that the model's windows need, and the slots that fit the budget."""
        prefix = 0
        if self.info.melody:
            prefix = self.info.prefix_positions + settings.max_text_tokens
        positions = prefix + self._windowing.max_frames + max(self._windowing.delays) + 1
        each = slot_bytes(self._lm, positions, settings.max_text_tokens, settings.precision)
        budget, origin = self._budget_gb(settings)
        slots = min(settings.max_slots, int(budget * 1e9 / each))
        figures = f"a slot takes {each / 1e6:.1f} MB of cache, the budget is {origin}"
        if slots < 1:
            raise NoRoom(f"{figures}: raise it to {each / 1e9:.2f} GB or more")
        logger.info("%s: %d slots", figures, slots)
        return replace(settings, max_slots=slots, max_positions=positions)

    def _budget_gb(self, settings: EngineSettings) -> tuple[float, str]:
        """Return the memory for caches in GB, and a text that explains it.

        Raises NoRoom if `cache_gb` is more than the share has after the weights.
        """
        asked = settings.cache_gb
        if next(self._lm.parameters()).device.type != "cuda":
            budget = CPU_CACHE_GB if asked is None else asked
            return budget, f"{budget:g} GB (cache_gb)"
        share = fence.describe_share(settings.gpu_share)
        left = fence.cache_budget_gb(settings.gpu_share)
        figures = f"{share}, the weights take {fence.weights_gb():.1f} GB and leave {left:.1f} GB"
        if asked is not None and asked > left:
            raise NoRoom(f"{figures}, cache_gb is {asked:g}: lower it, or raise num_gpus")
        budget = left if asked is None else asked
        return budget, f"{budget:.1f} GB ({figures})"

    def _encode_text(self, text: str) -> Conditions:
        """Encode a text; it takes up to seconds, so it must not run on the event loop."""
        return encode_conditions(self._lm, build_attributes(self._lm, text))

    def _encode_melody(self, text: str, melody: Waveform, start: int | None) -> Conditions:
        """Encode a text and a melody for the window that begins at frame `start`.

        None stands for a clip of one window, which hears the whole melody.
        """
        samples = melody.array()
        if start is not None:
            info = self.info
            begin = int(start / info.frame_rate * info.sample_rate)
            samples = cut_melody_window(samples, begin, int(info.max_seconds * info.sample_rate))
        return encode_conditions(self._lm, build_attributes(self._lm, text, samples))

    def prepare(self, params: GenerationParams) -> Request:
        """Encode the conditions of a request and build it; it must not run on the event loop.

        Raises InvalidRequest if the model cannot do what the parameters ask for.
        """
        if params.melody is None:
            return self.build_request(params, self.encode_text(params.text))
        self._check_melody(params.melody)
        melody = cut_melody(self.info, params.melody, params.frames, params.stride_seconds)
        windowing = self._windowing_for(params)
        starts = find_window_starts(params.frames, 0, windowing.max_frames, windowing.stride_frames)
        places = starts if len(starts) > 1 else [None]
        windows = [self.encode_melody(params.text, melody, at) for at in places]
        return self.build_request(params, *windows)

    def build_request(
        self, params: GenerationParams, conditions: Conditions, *later: Conditions
    ) -> Request:
        """Build a request from the encoded conditions of each window, or of all windows together.

        Raises InvalidRequest if the model cannot do what the parameters ask for.
        """
        self.loop.engine.check_text(conditions)
        check_temperature(params)
        prompt = params.prompt
        if prompt is not None:
            self._check_prompt(prompt, params.frames)
        windowing = self._windowing_for(params)
        codes = None if prompt is None else prompt.array().astype(np.int64)
        sequence = Sequence(windowing, params.frames, codes)
        passed = sequence.window_start // windowing.stride_frames if later else 0
        now, *after = (conditions, *later)[passed:]
        positions = count_positions(
            self.info, params.frames, sequence.prompt_frames, params.stride_seconds
        )
        return Request(params, now, sequence, after, positions=positions)

    def _windowing_for(self, params: GenerationParams) -> Windowing:
        """Return the windowing with the request's stride; raise InvalidRequest if it is invalid."""
        check_stride(self.info, params.stride_seconds)
        stride = count_stride_frames(self.info, params.stride_seconds)
        return replace(self._windowing, stride_frames=stride)

    def _check_melody(self, melody: Waveform) -> None:
        if not self.info.melody:
            raise InvalidRequest(
                "this model cannot follow a melody; remove the parameter", "melody"
            )
        if (melody.sample_rate, melody.channels) != (self.info.sample_rate, 1):
            wanted = f"{self.info.sample_rate} Hz, mono"
            raise InvalidRequest(f"the melody must be {wanted}", "melody")
        if not melody.samples or not np.isfinite(melody.array()).all():
            raise InvalidRequest(
                "the melody is empty, or has samples that are not finite numbers", "melody"
            )

    def _check_prompt(self, prompt: Codes, frames: int) -> None:
        info = self.info
        if prompt.codebooks != info.codebooks:
            problem = f"has {prompt.codebooks} codebooks; this model has {info.codebooks}"
        elif prompt.frames >= frames:
            problem = "is as long as the clip, or longer; ask for a longer duration"
        elif (
            prompt.frames
            and not 0 <= prompt.array().min() <= prompt.array().max() < info.cardinality
        ):
            problem = f"has codes that are not from 0 to {info.cardinality - 1}"
        else:
            return
        raise InvalidRequest(f"the audio to continue {problem}", "continue_from")
