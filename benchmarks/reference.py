"""Runs AudioCraft's own generation for one request at a time, as a baseline for comparisons."""

from collections.abc import Callable

import torch
from audiocraft.models.lm import LMModel

from engine.checkpoints import load_language_model
from engine.conditioning import build_attributes
from engine.errors import Cancelled, InvalidRequest
from engine.params import Codes, GenerationParams


class ReferenceModel:
    """A language model that calls `LMModel.generate` with a batch of one.

    AudioCraft draws from torch's global generator, so only one thread may call `generate`.
    """

    def __init__(self, lm: LMModel) -> None:
        self.lm = lm
        self.device = next(lm.parameters()).device
        self.dtype: torch.dtype = getattr(torch, lm.cfg.dtype)
        self.steps = 0

    @classmethod
    def load(
        cls, source: str, *, device: str, dtype: str, text_encoder: str | None = None
    ) -> "ReferenceModel":
        """Load from a checkpoint; see `engine.checkpoints`. Raises a CheckpointError."""
        return cls(
            load_language_model(source, device=device, dtype=dtype, text_encoder=text_encoder)
        )

    def generate(self, params: GenerationParams, cancelled: Callable[[], bool]) -> Codes:
        """Generate codes [codebooks, frames].

        `cancelled` is called at every step. Raises Cancelled, or InvalidRequest if half precision
        would overflow: AudioCraft divides by the temperature before it converts to float32.
        """
        half = self.dtype != torch.float32
        if half and 0 < params.temperature < 0.1:
            message = "this model runs in half precision; temperature: 0 (greedy) or at least 0.1"
            raise InvalidRequest(message, "temperature")

        def on_step(_done: int, _todo: int) -> None:
            self.steps += 1
            if cancelled():
                raise Cancelled("the caller disconnected")

        # Only the transformer has `dtype`; AudioCraft's BaseGenModel uses autocast as well.
        with torch.autocast(self.device.type, self.dtype, enabled=half):
            torch.manual_seed(params.seed)
            codes = self.lm.generate(
                conditions=[build_attributes(self.lm, params.text)],
                max_gen_len=params.frames,
                use_sampling=params.temperature > 0,
                temp=params.temperature,
                top_k=min(params.top_k, self.lm.card),
                top_p=params.top_p,
                cfg_coef=params.guidance_scale,
                callback=on_step,
            )
        return Codes.pack(codes[0].cpu().numpy())
