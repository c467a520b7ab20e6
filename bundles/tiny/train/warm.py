"""Begins a codec with the weights of one that looked ahead in its decoder, and had fewer codes."""

from collections.abc import Iterator
from typing import Any

import torch
from audiocraft.models.encodec import EncodecModel
from audiocraft.modules.conv import StreamableConv1d, StreamableConvTranspose1d
from torch import Tensor, nn


def find_convolutions(network: nn.Module) -> Iterator[tuple[Any, bool]]:
    """Yield a network's convolutions, and whether each is a transposed one."""
    for module in network.modules():
        if isinstance(module, StreamableConv1d):
            yield module.conv.conv, False
        elif isinstance(module, StreamableConvTranspose1d):
            yield module.convtr.convtr, True


def shift_taps(weight: Tensor, taps: int) -> Tensor:
    """Move a kernel, [..., taps], later by so many taps, earlier if negative; zeros come in."""
    shifted = torch.zeros_like(weight)
    if taps >= 0:
        shifted[..., taps:] = weight[..., : weight.shape[-1] - taps]
    else:
        shifted[..., :taps] = weight[..., -taps:]
    return shifted


@torch.no_grad()
def drop_the_future(network: nn.Module) -> None:
    """Change the kernels of a causal network that has the weights of one that looked ahead.

    A tap stays at the time that it looked at; those that looked ahead are dropped. A transposed
    convolution's frame keeps the samples from its own first one on.
    """
    for inner, upsamples in find_convolutions(network):
        padding = (inner.kernel_size[0] - 1) * inner.dilation[0] + 1 - inner.stride[0]
        ahead = padding // 2
        taps = ahead - padding if upsamples else ahead // inner.dilation[0]
        norm = inner.weight_v.norm(dim=(1, 2), keepdim=True)
        weight = shift_taps(inner.weight_g * inner.weight_v / norm, taps)
        inner.weight_v.copy_(weight)
        inner.weight_g.copy_(weight.norm(dim=(1, 2), keepdim=True))


@torch.no_grad()
def copy_codes(model: EncodecModel, old: EncodecModel) -> None:
    """Copy codes where there are fewer of them; the use of the others stays nothing."""
    for layer, before in zip(model.quantizer.vq.layers, old.quantizer.vq.layers, strict=True):
        book, known = layer._codebook, before._codebook
        for name in ("embed", "embed_avg", "cluster_size"):
            getattr(book, name)[: len(known.embed)] = getattr(known, name)
        book.inited.fill_(1)


def begin_with(model: EncodecModel, old: EncodecModel) -> None:
    """Copy what `old`, of the same sizes but for its codes and its looking ahead, has learnt."""
    model.encoder.load_state_dict(old.encoder.state_dict())
    model.decoder.load_state_dict(old.decoder.state_dict())
    if model.causal and not old.causal:
        drop_the_future(model.decoder)
    copy_codes(model, old)
