"""Generates many clips at once with the models of the bundle."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bundles.tiny.recipe import CODEBOOKS
from engine.codec import Codec
from engine.engine import EngineSettings
from engine.language_model import LanguageModel
from engine.params import AudioPiece, Codes, CodesPiece, GenerationParams

FRAME_RATE = 50.0
STRIDE_SECONDS = 5.0
SETTINGS = EngineSettings(max_slots=16, max_text_tokens=64)


def load_model(kind: str, bundle: Path) -> LanguageModel:
    """Load the language model "music", "melody" or "sound"."""
    return LanguageModel.load(
        str(bundle / kind),
        SETTINGS,
        device="cpu",
        frame_rate=FRAME_RATE,
        stride_seconds=STRIDE_SECONDS,
        text_encoder=str(bundle / "t5"),
    )


def generate_codes(
    model: LanguageModel, wanted: Sequence[GenerationParams]
) -> list[NDArray[np.int16]]:
    """Generate the codes of all clips together; return each one's, [codebooks, frames]."""

    async def generate_one(params: GenerationParams) -> NDArray[np.int16]:
        request = model.prepare(params)
        parts = [part async for part in model.loop.generate(request)]
        return np.concatenate(parts, axis=1)

    async def generate_all() -> list[NDArray[np.int16]]:
        return await asyncio.gather(*map(generate_one, wanted))

    return asyncio.run(generate_all())


def decode_codes(codec: Codec, clips: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
    """Decode codes of equal length to float32 [clips, samples]."""
    assert all(one.shape[0] == CODEBOOKS for one in clips)
    decoded = codec.decode([CodesPiece(Codes.pack(one)) for one in clips])
    return np.stack([one.audio.array()[0] for one in decoded if isinstance(one, AudioPiece)])


@torch.inference_mode()
def copied(codec: Codec, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encode and decode one clip [samples] with the codec."""
    encoded, _ = codec.model.encode(torch.from_numpy(audio)[None, None])
    decoded: NDArray[np.float32] = codec.model.decode(encoded)[0, 0, : len(audio)].numpy()
    return decoded
