"""Runs EnCodec's convolutional network (SEANet) piece by piece, with explicit state between calls.

Each layer keeps the inputs that later outputs need, and returns only final outputs, so the joined
pieces equal one pass over the whole clip, whatever the sizes of the pieces. An output that depends
on inputs to its right comes with a later piece, or with the last one. It supports AudioCraft's
`SEANetEncoder` and `SEANetDecoder` and transformers' EnCodec, causal or not; time-group-norm
(48 kHz) is not supported, because each of its outputs depends on all inputs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from audiocraft.modules.conv import StreamableConv1d, StreamableConvTranspose1d, pad1d
from audiocraft.modules.lstm import StreamableLSTM
from audiocraft.modules.seanet import SEANetResnetBlock
from torch import Tensor, nn
from transformers.models.encodec import modeling_encodec as hf

State = Mapping[str, Tensor]
"""The tensors that a network keeps between calls, by layer, each [B, ...]; empty at first."""

ACTIVATIONS = (nn.ELU, nn.Tanh, nn.Identity)


@dataclass(frozen=True)
class Convolution:
    """A convolution that keeps inputs, [B, C, T], until all outputs that need them are final."""

    key: str
    run: Callable[[Tensor], Tensor]
    channels: int
    span: int
    """The number of inputs that one output depends on."""
    stride: int
    left: int
    """Padding before the clip."""
    right: int
    """Padding after the clip."""
    mode: str
    """How the padding is filled."""

    def __call__(self, new: Tensor, old: State, kept: dict[str, Tensor], ended: bool) -> Tensor:
        waiting = f"{self.key}.waiting"
        begun = self.key in old
        held = torch.cat([old.get(self.key, old.get(waiting, new[..., :0])), new], -1)
        left = 0 if begun else self.left
        # The number of inputs so far, up to a multiple of the stride.
        inputs = held.shape[-1] + left - self.left
        right = self.right + -inputs % self.stride if ended else 0
        if not begun and not ended and held.shape[-1] <= left:
            kept[waiting] = held
            return held.new_empty(len(held), self.channels, 0)
        padded: Tensor = pad1d(held, (left, right), self.mode)
        count = max((padded.shape[-1] - self.span) // self.stride + 1, 0)
        kept[self.key] = padded[..., count * self.stride :]
        if not count:
            return padded.new_empty(len(padded), self.channels, 0)
        made: Tensor = self.run(padded[..., : (count - 1) * self.stride + self.span])
        return made


@dataclass(frozen=True)
class Upsampling:
    """A transposed convolution with a kernel of at most two strides; it keeps one input."""

    key: str
    run: Callable[[Tensor], Tensor]
    channels: int
    span: int
    stride: int
    left: int
    right: int

    def __call__(self, new: Tensor, old: State, kept: dict[str, Tensor], ended: bool) -> Tensor:
        previous = old.get(self.key, new[..., :0])
        joined = torch.cat([previous, new], -1)
        kept[self.key] = joined[..., -1:]
        count, before = joined.shape[-1], previous.shape[-1]
        start = before * self.stride if before else self.left
        end = count * self.stride + (self.span - self.stride - self.right if ended else 0)
        if count == 0 or end <= start:
            return joined.new_empty(len(joined), self.channels, 0)
        made: Tensor = self.run(joined)[..., start:end]
        return made


@dataclass(frozen=True)
class Recurrent:
    """An LSTM over time that keeps its hidden state and cell state."""

    key: str
    lstm: nn.LSTM
    skip: bool

    def __call__(self, new: Tensor, old: State, kept: dict[str, Tensor], ended: bool) -> Tensor:
        hidden, cell = f"{self.key}.hidden", f"{self.key}.cell"
        if new.shape[-1] == 0:
            kept |= {name: old[name] for name in (hidden, cell) if name in old}
            return new
        steps = new.permute(2, 0, 1)
        before = (
            (old[hidden].transpose(0, 1).contiguous(), old[cell].transpose(0, 1).contiguous())
            if hidden in old
            else None
        )
        made, (h, c) = self.lstm(steps, before)
        kept |= {hidden: h.transpose(0, 1), cell: c.transpose(0, 1)}
        given: Tensor = made + steps if self.skip else made
        return given.permute(1, 2, 0)


@dataclass(frozen=True)
class Residual:
    """A residual block; outputs of its shortcut are kept until the block's are final."""

    key: str
    block: "Sequence[Layer]"
    shortcut: Callable[[Tensor], Tensor]

    def __call__(self, new: Tensor, old: State, kept: dict[str, Tensor], ended: bool) -> Tensor:
        past = self.shortcut(new) if new.shape[-1] else new
        waiting = torch.cat([old.get(self.key, past[..., :0]), past], -1)
        made = run_layers(self.block, new, old, kept, ended)
        kept[self.key] = waiting[..., made.shape[-1] :]
        return waiting[..., : made.shape[-1]] + made


@dataclass(frozen=True)
class Pointwise:
    """An activation, which keeps no state."""

    run: Callable[[Tensor], Tensor]

    def __call__(self, new: Tensor, old: State, kept: dict[str, Tensor], ended: bool) -> Tensor:
        return self.run(new)


Layer = Convolution | Upsampling | Recurrent | Residual | Pointwise


def run_layers(
    layers: Iterable[Layer], new: Tensor, old: State, kept: dict[str, Tensor], ended: bool
) -> Tensor:
    """Run new inputs through layers with the state `old`; write the new state into `kept`."""
    for layer in layers:
        new = layer(new, old, kept, ended)
    return new


def build_layers(modules: Iterable[nn.Module], key: str = "") -> list[Layer]:
    """Build the streaming layers of an encoder or decoder; raise TypeError for unsupported ones."""
    return [_build_layer(module, f"{key}{index}") for index, module in enumerate(modules)]


def _build_layer(module: nn.Module, key: str) -> Layer:
    match module:
        case StreamableConv1d():
            return _build_convolution(module, module.conv.conv, module.conv, key)
        case hf.EncodecConv1d() if module.norm_type == "weight_norm":
            return _build_convolution(module, module.conv, module.conv, key)
        case StreamableConvTranspose1d():
            return _build_upsampling(module, module.convtr.convtr, module.convtr, key)
        case hf.EncodecConvTranspose1d() if module.norm_type == "weight_norm":
            return _build_upsampling(module, module.conv, module.conv, key)
        case StreamableLSTM():
            return Recurrent(key, module.lstm, module.skip)
        case hf.EncodecLSTM():
            return Recurrent(key, module.lstm, skip=True)
        case SEANetResnetBlock() | hf.EncodecResnetBlock():
            return Residual(key, build_layers(module.block, f"{key}."), module.shortcut)
        case _ if isinstance(module, ACTIVATIONS):
            return Pointwise(module)
    raise TypeError(f"{type(module).__name__} cannot be run piece by piece")


def _build_convolution(
    module: StreamableConv1d | hf.EncodecConv1d,
    conv: nn.Conv1d,
    whole: Callable[[Tensor], Tensor],
    key: str,
) -> Convolution:
    span = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1
    stride = conv.stride[0]
    right = 0 if module.causal else (span - stride) // 2
    left = span - stride - right
    return Convolution(key, whole, conv.out_channels, span, stride, left, right, module.pad_mode)


def _build_upsampling(
    module: StreamableConvTranspose1d | hf.EncodecConvTranspose1d,
    conv: nn.ConvTranspose1d,
    whole: Callable[[Tensor], Tensor],
    key: str,
) -> Upsampling:
    span, stride = conv.kernel_size[0], conv.stride[0]
    assert span <= 2 * stride, f"a kernel of {span} over a stride of {stride}"
    total = span - stride
    right = math.ceil(total * module.trim_right_ratio) if module.causal else total // 2
    return Upsampling(key, whole, conv.out_channels, span, stride, total - right, right)
