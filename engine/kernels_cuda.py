"""Implements attention for CUDA with Triton; arguments and results as in `engine.kernels_cpu`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
"""The number of positions that a kernel reads at a time."""


@triton.jit
def _write_tokens(projected, past, slots, rows, positions, steps, HEADS, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    token, head, kind = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    inside = tl.arange(0, SIZE)
    slot, row = tl.load(slots + token), tl.load(rows + token)
    place = tl.load(positions + token)
    kind_step, slot_step, row_step, head_step = steps
    target = past + kind * kind_step + slot * slot_step + row * row_step + head * head_step
    source = projected + ((token * 3 + 1 + kind) * HEADS + head) * SIZE
    tl.store(target + place * SIZE + inside, tl.load(source + inside))


@triton.jit
def _attend_blocks(  # type: ignore[no-untyped-def]
    query, keys, values, slots, rows, lengths, out, query_step, steps, HEADS,  # noqa: N803
    SIZE: tl.constexpr, MORE: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Attend with one token to `lengths` + MORE keys, block by block; no keys give zeros."""
    token, head = tl.program_id(0), tl.program_id(1)
    inside = tl.arange(0, SIZE)
    length = tl.load(lengths + token) + MORE
    slot_step, row_step, head_step = steps
    begin = tl.load(slots + token) * slot_step + tl.load(rows + token) * row_step
    begin += head * head_step
    asked = tl.load(query + token * query_step + head * SIZE + inside).to(tl.float32)
    greatest = -float("inf")
    total = 0.0
    mixed = tl.zeros([SIZE], tl.float32)
    first = 0
    while first < length:
        places = first + tl.arange(0, BLOCK)
        known = places < length
        where = begin + places[:, None] * SIZE + inside[None, :]
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
    projected: Tensor, past: Tensor, slots: Tensor, rows: Tensor, positions: Tensor
) -> Tensor:
    """Write each token's key and value to the cache, then let it attend to its past and itself."""
    tokens, _, heads, size = projected.shape
    where: tuple[Any, ...] = (slots, rows, positions)
    _write_tokens[tokens, heads, 2](projected, past, *where, past.stride()[:4], heads, SIZE=size)
    out = torch.empty_like(projected[:, 0], memory_format=torch.contiguous_format)
    steps = past.stride()[1:4]
    _attend_blocks[tokens, heads](
        projected, past[0], past[1], *where, out, projected.stride(0), steps, heads,
        SIZE=size, MORE=1, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def attend_text(query: Tensor, text: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """Let each token attend to the text of its slot; an empty text gives zeros."""
    tokens, heads, size = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    slot_step, head_step = text.stride()[1:3]
    _attend_blocks[tokens, heads](
        query, text[0], text[1], slots, slots, lengths, out, query.stride(0),
        (slot_step, 0, head_step), heads, SIZE=size, MORE=0, BLOCK=BLOCK,
    )  # fmt: skip
    return out
