"""A codec's networks, piece by piece, whichever of AudioCraft's classes it is.

`EncodecModel`, transformers' EnCodec, and either under `InterleaveStereoCompressionModel`, which
codes left and right apart and interleaves their codebooks.
"""

from collections.abc import Sequence

import torch
from audiocraft.models.encodec import (
    CompressionModel,
    EncodecModel,
    HFEncodecCompressionModel,
    InterleaveStereoCompressionModel,
)
from einops import rearrange
from safetensors import numpy as safetensors
from torch import Tensor

from engine.codec_stream import State, layers_of, run


def pack(state: State) -> list[bytes]:
    """Return each item's part of a state, to travel with its caller."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    items = len(next(iter(arrays.values())))
    return [
        safetensors.save({name: array[item].copy() for name, array in arrays.items()})
        for item in range(items)
    ]


def unpack(parts: Sequence[bytes], device: torch.device) -> State:
    """Return what `pack` was given; all parts are at the same point, or all are empty."""
    if not parts[0]:
        return {}
    items = [safetensors.load(part) for part in parts]
    stacked = {name: [torch.from_numpy(item[name]) for item in items] for name in items[0]}
    return {name: torch.stack(tensors).to(device) for name, tensors in stacked.items()}


class Networks:
    """Encoder and decoder of one codec. Raises TypeError for one that cannot run in pieces."""

    def __init__(self, model: CompressionModel) -> None:
        self._stereo = isinstance(model, InterleaveStereoCompressionModel)
        self._mono = mono = model.model if self._stereo else model
        if isinstance(mono, EncodecModel) and not mono.renormalize:
            self._encoder = layers_of(mono.encoder.model)
            self._decoder = layers_of(mono.decoder.model)
        elif isinstance(mono, HFEncodecCompressionModel) and not mono.model.config.normalize:
            self._encoder = layers_of(mono.model.encoder.layers)
            self._decoder = layers_of(mono.model.decoder.layers)
        else:
            raise TypeError(f"a {type(mono).__name__} that normalises its input")

    def decode(self, codes: Tensor, state: State, ended: bool) -> tuple[Tensor, State]:
        """Decode the next codes, [B, K, T]; return samples [B, C, n] and the state after them."""
        if self._stereo:
            codes = rearrange(codes, "b (k c) t -> (b c) k t", c=2)
        kept: dict[str, Tensor] = {}
        past = {name: self._split(part) for name, part in state.items()}
        audio = run(self._decoder, self._mono.decode_latent(codes), past, kept, ended)
        return self._join(audio), {name: self._join(part) for name, part in kept.items()}

    def encode(self, audio: Tensor, state: State, ended: bool) -> tuple[Tensor, State]:
        """Encode the next samples, [B, C, n]; return codes [B, K, T] and the state after them."""
        kept: dict[str, Tensor] = {}
        past = {name: self._split(part) for name, part in state.items()}
        codes = self._codes(run(self._encoder, self._split(audio), past, kept, ended))
        if self._stereo:
            codes = rearrange(codes, "(b c) k t -> b (k c) t", c=2)
        return codes, {name: self._join(part) for name, part in kept.items()}

    def _split(self, part: Tensor) -> Tensor:
        """Make items of left and right, where a codec treats them apart."""
        return rearrange(part, "b (c x) t -> (b c) x t", c=2) if self._stereo else part

    def _join(self, part: Tensor) -> Tensor:
        return rearrange(part, "(b c) x t -> b (c x) t", c=2) if self._stereo else part

    def _codes(self, latent: Tensor) -> Tensor:
        """Quantize with all codebooks; fewer are the first of them."""
        if isinstance(self._mono, EncodecModel):
            codes: Tensor = self._mono.quantizer.encode(latent)
        else:
            most = self._mono.model.config.target_bandwidths[-1]
            codes = self._mono.model.quantizer.encode(latent, most).transpose(0, 1)
        return codes
