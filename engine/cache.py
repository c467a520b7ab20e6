"""Every slot's keys and values, allocated once, and how each token finds its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from audiocraft.models.lm import LMModel
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive new positions of one slot, for each of its rows."""

    slot: int
    rows: int
    """1, or 2 under guidance: the conditional row, then the null row."""
    start: int
    """The position of the first, from 0."""
    count: int

    @property
    def tokens(self) -> int:
        """Rows times positions."""
        return self.rows * self.count


class Kernels(Protocol):
    """Attention on one kind of device; see `engine.kernels_cpu`."""

    def attend_past(
        self, projected: Tensor, past: Tensor, slots: Tensor, rows: Tensor, positions: Tensor
    ) -> Tensor:
        """Write new keys and values, and attend to each token's own past."""

    def attend_text(self, query: Tensor, text: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
        """Attend to the text of each token's slot."""


def cache_dtype(precision: str) -> torch.dtype:
    """Return the numbers that the cache holds beside weights of a precision."""
    floating: torch.dtype = getattr(torch, "bfloat16" if precision == "int8" else precision)
    return floating


def slot_bytes(lm: LMModel, positions: int, text_tokens: int, precision: str) -> int:
    """Return the bytes of cache that one slot takes: keys and values of two rows and a text."""
    numbers: int = 2 * len(lm.transformer.layers) * lm.dim * (2 * positions + text_tokens)
    return numbers * cache_dtype(precision).itemsize


class Cache:
    """`past` is [layer, 2, slot, row, head, position, head_dim], keys then values; `text` is
    [layer, 2, slot, head, text token, head_dim], of the conditional row.
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
        """Keep one layer's keys and values of a text, [tokens, 2 x width]."""
        tokens = len(projected)
        assert tokens <= self.text.shape[4], "the text is longer than a slot has room for"
        parts = projected.view(tokens, 2, self.heads, -1).permute(1, 2, 0, 3)
        self.text[depth, :, slot, :, :tokens] = parts

    def attend_past(self, depth: int, projected: Tensor, place: "Place") -> Tensor:
        """Keep new keys and values, and attend to them and the past before them.

        `projected` is [tokens, 3 x width]: scaled queries, keys, values. Returns [tokens, width].
        """
        split = projected.view(len(projected), 3, self.heads, -1)
        where = (place.slots, place.rows, place.positions)
        return self._kernels.attend_past(split, self.past[depth], *where).flatten(1)

    def attend_text(self, depth: int, query: Tensor, place: "Place") -> Tensor:
        """Let the tokens that have a text attend to it; scaled queries [tokens, width]."""
        split = query.view(len(query), self.heads, -1)
        where = (place.text_slots, place.text_lengths)
        return self._kernels.attend_text(split, self.text[depth], *where).flatten(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where each token of a batch stands, in int64 tensors: one segment after the other, in each
    its rows, in each row its positions.
    """

    slots: Tensor
    rows: Tensor
    positions: Tensor
    last: Tensor
    """The last token of each row."""
    with_text: Tensor
    """The tokens that attend to a text: those of conditional rows."""
    text_slots: Tensor
    text_lengths: Tensor

    @classmethod
    def of(cls, cache: Cache, segments: Sequence[Segment]) -> "Place":
        """Return the place of what the segments feed."""
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
