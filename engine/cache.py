"""Holds the keys and values of all requests in pages, and maps the tokens of a batch to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from audiocraft.models.lm import LMModel
from torch import Tensor

from engine.page_table import PAGE, ROWS, TEXT_ROW, PageTable


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
        self, projected: Tensor, pool: Tensor, table: Tensor, rows: Tensor, positions: Tensor
    ) -> Tensor:
        """Write the new keys and values, and let each token attend to its own past."""

    def attend_text(
        self, query: Tensor, pool: Tensor, table: Tensor, rows: Tensor, lengths: Tensor
    ) -> Tensor:
        """Let each token attend to the text of its slot."""


def cache_dtype(precision: str) -> torch.dtype:
    """Return the dtype of the cache for weights of a precision; for int8 it is bfloat16."""
    floating: torch.dtype = getattr(torch, "bfloat16" if precision == "int8" else precision)
    return floating


def page_bytes(lm: LMModel, precision: str) -> int:
    """Return the bytes of a page: the keys and values of `PAGE` positions in all layers."""
    numbers: int = 2 * len(lm.transformer.layers) * lm.dim * PAGE
    return numbers * cache_dtype(precision).itemsize


class Cache:
    """The keys and values of all requests, allocated once.

    `pool` is [layer, 2, page, head, position in the page, head_dim], keys then values. A text is
    kept in pages as well; it belongs to the conditional row.
    """

    def __init__(
        self, lm: LMModel, *, slots: int, pages: int, positions: int, precision: str
    ) -> None:
        self.device = next(lm.parameters()).device
        self.heads = lm.transformer.layers[0].self_attn.num_heads
        shape = (len(lm.transformer.layers), 2, pages, self.heads, PAGE, lm.dim // self.heads)
        self.pool = torch.zeros(shape, dtype=cache_dtype(precision), device=self.device)
        self.pages = PageTable(slots, pages, positions, self.device)
        self.text_lengths = [0] * slots
        self._kernels = cast(Kernels, import_module(f"engine.kernels_{self.device.type}"))

    def set_text(self, depth: int, slot: int, projected: Tensor) -> None:
        """Store the keys and values of a slot's text, [tokens, 2 x width], for one layer.

        The text's row must have its pages.
        """
        places = torch.arange(len(projected))
        pages = self.pages.written[ROWS * slot + TEXT_ROW, places // PAGE].to(self.device)
        parts = projected.view(len(projected), 2, self.heads, -1).to(self.pool.dtype)
        self.pool[depth][:, pages, :, (places % PAGE).to(self.device)] = parts

    def attend_past(self, depth: int, projected: Tensor, layout: "TokenLayout") -> Tensor:
        """Store the new keys and values, and let each token attend to its past and itself.

        `projected` is [tokens, 3 x width]: scaled queries, keys, values. Returns [tokens, width].
        """
        split = projected.view(len(projected), 3, self.heads, -1)
        where = (self.pages.table, layout.rows, layout.positions)
        return self._kernels.attend_past(split, self.pool[depth], *where).flatten(1)

    def attend_text(self, depth: int, query: Tensor, layout: "TokenLayout") -> Tensor:
        """Let the tokens with a text attend to it.

        `query` holds scaled queries [tokens, width]. Returns [tokens, width].
        """
        split = query.view(len(query), self.heads, -1)
        where = (self.pages.table, layout.text_rows, layout.text_lengths)
        return self._kernels.attend_text(split, self.pool[depth], *where).flatten(1)


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """The row in the page table and the position of each token of a batch, as int64 tensors.

    Tokens are ordered by segment, then by row, then by position.
    """

    rows: Tensor
    positions: Tensor
    last: Tensor
    """The index of each row's last token."""
    with_text: Tensor
    """The indices of the tokens that attend to a text: those of conditional rows."""
    text_rows: Tensor
    """The text's row in the page table, for each token in `with_text`."""
    text_lengths: Tensor
    """The text length of each token in `with_text`."""

    @classmethod
    def from_segments(cls, cache: Cache, segments: Sequence[Segment]) -> "TokenLayout":
        """Return the layout of the tokens that the segments feed."""
        rows: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        with_text: list[int] = []
        text_slots: list[int] = []
        for segment in segments:
            if cache.text_lengths[segment.slot]:
                with_text += range(len(rows), len(rows) + segment.count)
                text_slots += [segment.slot] * segment.count
            for row in range(segment.rows):
                rows += [ROWS * segment.slot + row] * segment.count
                positions += range(segment.start, segment.start + segment.count)
                last.append(len(rows) - 1)
        text_rows = [ROWS * slot + TEXT_ROW for slot in text_slots]
        lengths = [cache.text_lengths[slot] for slot in text_slots]
        fields = (rows, positions, last, with_text, text_rows, lengths)
        return cls(*(torch.tensor(f, dtype=torch.long, device=cache.device) for f in fields))
