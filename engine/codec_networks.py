"""Runs the encoder and decoder of any AudioCraft codec class piece by piece.

The classes are `EncodecModel`, transformers' EnCodec, and either of them inside
`InterleaveStereoCompressionModel`, which processes left and right separately and interleaves their
codebooks.
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

from engine.codec_stream import State, build_layers, run_layers


def pack_state(state: State) -> list[bytes]:
    """Serialize the state of each item of a batch, so that its caller can keep it."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    items = len(next(iter(arrays.values())))
    return [
        safetensors.save({name: array[item].copy() for name, array in arrays.items()})
        for item in range(items)
    ]


def unpack_state(parts: Sequence[bytes], device: torch.device) -> State:
    """Build a batch's state from serialized states, which must all be at the same point of a clip.

    Empty parts give the state before the first piece.
    """
    if not parts[0]:
        return {}
    items = [safetensors.load(part) for part in parts]
    stacked = {name: [torch.from_numpy(item[name]) for item in items] for name in items[0]}
    return {name: torch.stack(tensors).to(device) for name, tensors in stacked.items()}


class CodecNetworks:
    """The encoder and decoder of a codec; TypeError is raised for one that cannot be streamed."""

    def __init__(self, model: CompressionModel) -> None:
        self._stereo = isinstance(model, InterleaveStereoCompressionModel)
        self._mono = mono = model.model if self._stereo else model
        if isinstance(mono, EncodecModel) and not mono.renormalize:
            self._encoder = build_layers(mono.encoder.model)
            self._decoder = build_layers(mono.decoder.model)
        elif isinstance(mono, HFEncodecCompressionModel) and not mono.model.config.normalize:
            self._encoder = build_layers(mono.model.encoder.layers)
            self._decoder = build_layers(mono.model.decoder.layers)
        else:
            raise TypeError(f"a {type(mono).__name__} that normalises its input")

    def decode_piece(self, codes: Tensor, state: State, ended: bool) -> tuple[Tensor, State]:
        """Decode the next codes, [B, K, T]; return samples [B, C, n] and the state after them."""
        if self._stereo:
            codes = rearrange(codes, "b (k c) t -> (b c) k t", c=2)
        kept: dict[str, Tensor] = {}
        past = {name: self._split_sides(part) for name, part in state.items()}
        audio = run_layers(self._decoder, self._mono.decode_latent(codes), past, kept, ended)
        return self._join_sides(audio), {
            name: self._join_sides(part) for name, part in kept.items()
        }

    def encode_piece(self, audio: Tensor, state: State, ended: bool) -> tuple[Tensor, State]:
        """Encode the next samples, [B, C, n]; return codes [B, K, T] and the state after them."""
        kept: dict[str, Tensor] = {}
        past = {name: self._split_sides(part) for name, part in state.items()}
        latent = run_layers(self._encoder, self._split_sides(audio), past, kept, ended)
        codes = self._quantise_latent(latent)
        if self._stereo:
            codes = rearrange(codes, "(b c) k t -> b (k c) t", c=2)
        return codes, {name: self._join_sides(part) for name, part in kept.items()}

    def _split_sides(self, part: Tensor) -> Tensor:
        """Turn left and right into separate items if the codec is stereo by a mono codec."""
        return rearrange(part, "b (c x) t -> (b c) x t", c=2) if self._stereo else part

    def _join_sides(self, part: Tensor) -> Tensor:
        """Undo `_split_sides`."""
        return rearrange(part, "(b c) x t -> b (c x) t", c=2) if self._stereo else part

    def _quantise_latent(self, latent: Tensor) -> Tensor:
        """Quantise a latent [B, D, T] with all codebooks; return codes [B, K, T]."""
        if isinstance(self._mono, EncodecModel):
            codes: Tensor = self._mono.quantizer.encode(latent)
        else:
            most = self._mono.model.config.target_bandwidths[-1]
            codes = self._mono.model.quantizer.encode(latent, most).transpose(0, 1)
        return codes
