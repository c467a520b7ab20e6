"""Builds our application with models that compute nothing, to measure the graph alone.

`import_path: benchmarks.under_load.fast:build`. Codes come immediately, in chunks of the requested
sizes, and the audio is silence of the right length.
"""

from collections.abc import AsyncGenerator
from unittest.mock import patch

import numpy as np
from ray import serve
from ray.serve import Application

from deployments.settings import EnCodecSettings, TokenModelSettings
from deployments.tracing import trace_calls
from engine.params import (
    AudioPiece,
    BatchLoad,
    CodecInfo,
    Codes,
    CodesPiece,
    Generated,
    GenerationParams,
    LanguageModelInfo,
    Waveform,
)
from graph import app
from graph.settings import AppArgs

CODEBOOKS, CARDINALITY, SAMPLE_RATE, FRAME_RATE = 4, 512, 16000, 50

FAST = 10_000.0
"""The reported work per second."""


@serve.deployment
@trace_calls
class FastMusicGen:
    """A replica of a language model without the model."""

    def __init__(self, settings: TokenModelSettings) -> None:
        self._slots = settings.engine.max_slots

    async def info(self) -> LanguageModelInfo:
        """Return the properties of the embedded model."""
        return LanguageModelInfo(CODEBOOKS, CARDINALITY, SAMPLE_RATE, FRAME_RATE, 30.0)

    async def record_routing_stats(self) -> dict[str, float]:
        """Return the slots and a speed above any load for `deployments.scaling.router`."""
        return {"slots": self._slots, "speed": FAST}

    async def generate(
        self,
        params: GenerationParams,
        chunk_frames: int,
        first_chunk_frames: int,
        turn: float = 0.0,
    ) -> AsyncGenerator[Generated, None]:
        """Yield chunks of zero codes immediately."""
        done, size = 0, first_chunk_frames
        while done < params.frames:
            size = min(size, params.frames - done)
            yield Generated(Codes.pack(np.zeros((CODEBOOKS, size), np.int16)), 0.0, 0.0)
            done, size = done + size, chunk_frames


@serve.deployment(max_ongoing_requests=256)
@trace_calls
class FastEnCodec:
    """A replica of a codec without the codec."""

    def __init__(self, settings: EnCodecSettings) -> None:
        pass

    async def info(self) -> CodecInfo:
        """Return the properties of the embedded codec."""
        return CodecInfo(CODEBOOKS, CARDINALITY, SAMPLE_RATE, 1, FRAME_RATE)

    async def record_routing_stats(self) -> dict[str, float]:
        """Return a speed above any load for `deployments.scaling.router`."""
        return {"speed": FAST}

    async def load(self) -> BatchLoad:
        """Return an empty load."""
        return BatchLoad(0, 0, 0)

    async def decode(self, piece: CodesPiece) -> AudioPiece:
        """Return silence of the right length immediately."""
        samples = piece.codes.frames * SAMPLE_RATE // FRAME_RATE
        audio = Waveform.pack(np.zeros((1, samples), np.float32), SAMPLE_RATE)
        return AudioPiece(audio, b"", piece.ended)


def build(args: AppArgs) -> Application:
    """Bind our graph with these deployments."""
    with patch.dict(app.DEPLOYMENTS, musicgen=FastMusicGen, encodec=FastEnCodec):
        return app.build(args)
