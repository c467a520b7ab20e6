"""Holds the keys and values of every slot, and maps the tokens of a batch to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from audiocraft.models.lm import LMModel
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive positions that one slot feeds in a step, for each of its rows."""

    slot: int
    rows: int
    """1, or 2 with guidance: the conditional row, then the null row."""
    start: int
    """The first position, counted from 0."""
    count: int
    """The number of positions."""

    @property
    def tokens(self) -> int:
        """The number of tokens: rows times positions."""
        return self.rows * self.count


class Kernels(Protocol):
    """The attention functions of one kind of device; see `engine.kernels_cpu`."""

    def attend_past(
        self, projected: Tensor, past: Tensor, slots: Tensor, rows: Tensor, positions: Tensor
    ) -> Tensor:
        """Write the new keys and values, and let each token attend to its own past."""

    def attend_text(self, query: Tensor, text: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
        """Let each token attend to the text of its slot."""


def cache_dtype(precision: str) -> torch.dtype:
    """Return the dtype of the cache for weights of a precision; for int8 it is bfloat16."""
    floating: torch.dtype = getattr(torch, "bfloat16" if precision == "int8" else precision)
    return floating


def slot_bytes(lm: LMModel, positions: int, text_tokens: int, precision: str) -> int:
    """Return the bytes of cache for one slot: keys and values of two rows and of a text."""
    numbers: int = 2 * len(lm.transformer.layers) * lm.dim * (2 * positions + text_tokens)
    return numbers * cache_dtype(precision).itemsize


class Cache:
    """The keys and values of all slots, allocated once.

    `past` is [layer, 2, slot, row, head, position, head_dim], keys then values. `text` is
    [layer, 2, slot, head, text token, head_dim] and belongs to the conditional row.
    """

    def __init__(
        self, lm: LMModel, *, slots: int, positions: int, text_tokens: int, precision: str
    ) -> None:
        self.device = next(lm.parameters()).device
        self.heads = lm.transformer.layers[0].self_attn.num_heads
        depth, head_dim = len(lm.transformer.layers), lm.dim // self.heads
        past = (depth, 2, slots, 2, self.heads, positions, head_dim)
        text = (depth, 2, slots, self.heads, text_tokens, head_dim)
        dtype = cache_dtype(precision)
        self.past, self.text = (
            torch.zeros(shape, dtype=dtype, device=self.device) for shape in (past, text)
        )
        self.text_lengths = [0] * slots
        self._kernels = cast(Kernels, import_module(f"engine.kernels_{self.device.type}"))

    def set_text(self, depth: int, slot: int, projected: Tensor) -> None:
        """Store the keys and values of a slot's text, [tokens, 2 x width], for one layer."""
        tokens = len(projected)
        assert tokens <= self.text.shape[4], "the text has more tokens than a slot can hold"
        parts = projected.view(tokens, 2, self.heads, -1).permute(1, 2, 0, 3)
        self.text[depth, :, slot, :, :tokens] = parts

    def attend_past(self, depth: int, projected: Tensor, layout: "TokenLayout") -> Tensor:
        """Store the new keys and values, and let each token attend to its past and itself.

        `projected` is [tokens, 3 x width]: scaled queries, keys, values. Returns [tokens, width].
        """
        split = projected.view(len(projected), 3, self.heads, -1)
        where = (layout.slots, layout.rows, layout.positions)
        return self._kernels.attend_past(split, self.past[depth], *where).flatten(1)

    def attend_text(self, depth: int, query: Tensor, layout: "TokenLayout") -> Tensor:
        """Let the tokens with a text attend to it.

        `query` holds scaled queries [tokens, width]. Returns [tokens, width].
        """
        split = query.view(len(query), self.heads, -1)
        where = (layout.text_slots, layout.text_lengths)
        return self._kernels.attend_text(split, self.text[depth], *where).flatten(1)


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """The slot, row and position of each token of a batch, as int64 tensors.

    Tokens are ordered by segment, then by row, then by position.
    """

    slots: Tensor
    rows: Tensor
    positions: Tensor
    last: Tensor
    """The index of each row's last token."""
    with_text: Tensor
    """The indices of the tokens that attend to a text: those of conditional rows."""
    text_slots: Tensor
    """The slot of each token in `with_text`."""
    text_lengths: Tensor
    """The text length of each token in `with_text`."""

    @classmethod
    def from_segments(cls, cache: Cache, segments: Sequence[Segment]) -> "TokenLayout":
        """Return the layout of the tokens that the segments feed."""
        slots: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        with_text: list[int] = []
        for segment in segments:
            if cache.text_lengths[segment.slot]:
                with_text += range(len(slots), len(slots) + segment.count)
            for row in range(segment.rows):
                slots += [segment.slot] * segment.count
                rows += [row] * segment.count
                positions += range(segment.start, segment.start + segment.count)
                last.append(len(slots) - 1)
        text_slots = [slots[token] for token in with_text]
        lengths = [cache.text_lengths[slot] for slot in text_slots]
        fields = (slots, rows, positions, last, with_text, text_slots, lengths)
        return cls(*(torch.tensor(f, dtype=torch.long, device=cache.device) for f in fields))
