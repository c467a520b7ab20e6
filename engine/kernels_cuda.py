"""Implements attention for CUDA with Triton; arguments and results as in `engine.kernels_cpu`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.page_table import PAGE

BLOCK = 64
"""The number of positions that a kernel reads at a time."""


@triton.jit
def _find_places(table, row, width, places, known, PAGE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Return the page of each known place of a row, and the place inside of it."""
    pages = tl.load(table + row * width + places // PAGE, mask=known, other=0)
    return pages.to(tl.int64), places % PAGE


@triton.jit
def _write_tokens(  # type: ignore[no-untyped-def]
    projected, pool, table, rows, positions, width, steps, HEADS,  # noqa: N803
    SIZE: tl.constexpr, PAGE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    token, head, kind = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    inside = tl.arange(0, SIZE)
    position = tl.load(positions + token)
    page, place = _find_places(table, tl.load(rows + token), width, position, True, PAGE)
    kind_step, page_step, head_step = steps
    target = pool + kind * kind_step + page * page_step + head * head_step + place * SIZE
    source = projected + ((token * 3 + 1 + kind) * HEADS + head) * SIZE
    tl.store(target + inside, tl.load(source + inside))


@triton.jit
def _attend_blocks(  # type: ignore[no-untyped-def]
    query, keys, values, table, rows, lengths, out, query_step, width, steps, HEADS,  # noqa: N803
    SIZE: tl.constexpr, MORE: tl.constexpr, BLOCK: tl.constexpr, PAGE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Attend with one token to `lengths` + MORE keys, block by block; no keys give zeros."""
    token, head = tl.program_id(0), tl.program_id(1)
    inside = tl.arange(0, SIZE)
    length, row = tl.load(lengths + token) + MORE, tl.load(rows + token)
    _, page_step, head_step = steps
    asked = tl.load(query + token * query_step + head * SIZE + inside).to(tl.float32)
    greatest = -float("inf")
    total = 0.0
    mixed = tl.zeros([SIZE], tl.float32)
    first = 0
    while first < length:
        places = first + tl.arange(0, BLOCK)
        known = places < length
        pages, at = _find_places(table, row, width, places, known, PAGE)
        begin = pages * page_step + head * head_step + at * SIZE
        where = begin[:, None] + inside[None, :]
        key = tl.load(keys + where, mask=known[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + where, mask=known[:, None], other=0.0).to(tl.float32)
        scores = tl.where(known, tl.sum(key * asked[None, :], 1), -float("inf"))
        higher = tl.maximum(greatest, tl.max(scores, 0))
        weights, fade = tl.exp(scores - higher), tl.exp(greatest - higher)
        mixed = mixed * fade + tl.sum(weights[:, None] * value, 0)
        total = total * fade + tl.sum(weights, 0)
        greatest = higher
        first += BLOCK
    tl.store(out + (token * HEADS + head) * SIZE + inside, mixed / tl.maximum(total, 1e-30))


def attend_past(
    projected: Tensor, pool: Tensor, table: Tensor, rows: Tensor, positions: Tensor
) -> Tensor:
    """Write each token's key and value to the cache, then let it attend to its past and itself."""
    tokens, _, heads, size = projected.shape
    where: tuple[Any, ...] = (table, rows, positions)
    width, steps = table.stride(0), pool.stride()[:3]
    _write_tokens[tokens, heads, 2](
        projected, pool, *where, width, steps, heads, SIZE=size, PAGE=PAGE
    )
    out = torch.empty_like(projected[:, 0], memory_format=torch.contiguous_format)
    _attend_blocks[tokens, heads](
        projected, pool[0], pool[1], *where, out, projected.stride(0), width, steps, heads,
        SIZE=size, MORE=1, BLOCK=BLOCK, PAGE=PAGE,
    )  # fmt: skip
    return out


def attend_text(
    query: Tensor, pool: Tensor, table: Tensor, rows: Tensor, lengths: Tensor
) -> Tensor:
    """Let each token attend to the text of its slot; an empty text gives zeros."""
    tokens, heads, size = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    _attend_blocks[tokens, heads](
        query, pool[0], pool[1], table, rows, lengths, out, query.stride(0),
        table.stride(0), pool.stride()[:3], heads, SIZE=size, MORE=0, BLOCK=BLOCK, PAGE=PAGE,
    )  # fmt: skip
    return out
