"""Implements attention and int8 rounding for the CPU with numba, compiled at first use.

torch's matrix products and fused attention read the cache at half of the memory bandwidth if there
is one query per row, and cannot take rows of different lengths in one call. Here each token reads
its own past once. A bfloat16 cache is passed as uint16, the upper half of a float32. The arithmetic
of a token depends only on its own past, so its result has the same bits in every batch.

Threads come from OpenMP or, without libgomp, from numba, whose pool only one thread of a process
may use at a time: the engine's.
"""

import math
import os
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange, types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

# Compiling takes seconds, so compiled code is cached beside this file if the folder is writable.
KEEP = "NUMBA_CACHE_DIR" in os.environ or os.access(Path(__file__).parent, os.W_OK)


def _widen_to_float32(number: Any) -> Any:
    """Convert a number of the cache to float32."""


@overload(_widen_to_float32, strict=False)
def _widen_by_type(number: Any) -> Any:
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: number


def _write_rounded(cached: Any, at: Any, number: Any) -> None:
    """Write a float32 to the cache, rounded to the nearest value, ties to even."""


@overload(_write_rounded, strict=False)
def _write_by_type(cached: Any, at: Any, number: Any) -> Any:
    if cached.dtype == types.uint16:

        def write_bfloat16(cached: Any, at: Any, number: Any) -> None:
            bits = np.float32(number).view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            cached[at] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return write_bfloat16

    def write_float32(cached: Any, at: Any, number: Any) -> None:
        cached[at] = number

    return write_float32


# Taylor coefficients ln(2)^k / k! of 2^x; for |x| <= 1/2 they give all bits of a float32.
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (
    np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 8)
)
_LOG2E = np.float32(1 / math.log(2))


@njit(fastmath={"contract"}, error_model="numpy", cache=KEEP)
def _exponentiate_scores(scores, length, greatest):  # type: ignore[no-untyped-def]
    """Replace scores by exp(score - greatest); unlike `math.exp`, this loop can be vectorized."""
    for place in range(length):
        power = max((scores[place] - greatest) * _LOG2E, np.float32(-126))
        whole = np.rint(power)
        x = power - whole
        fraction = _C4 + x * (_C5 + x * (_C6 + x * _C7))
        fraction = np.float32(1) + x * (_C1 + x * (_C2 + x * (_C3 + x * fraction)))
        exponent = np.uint32(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))
        scores[place] = fraction * exponent.view(np.float32)


@njit(fastmath=True, error_model="numpy", cache=KEEP)
def _attend_token(query, pool, pages, head, length, scores, mixed, out):  # type: ignore[no-untyped-def]
    """Attend with one query to the first `length` keys; a length of 0 gives zeros."""
    greatest, page_size = np.float32(-np.inf), pool.shape[3]
    for start in range(0, length, page_size):
        keys = pool[0, pages[start // page_size], head]
        for place in range(start, min(start + page_size, length)):
            score = np.float32(0)
            for i in range(query.size):
                score += query[i] * _widen_to_float32(keys[place - start, i])
            scores[place] = score
            greatest = max(greatest, score)
    _exponentiate_scores(scores, length, greatest)
    total = np.float32(0)
    mixed[:] = 0
    for start in range(0, length, page_size):
        values = pool[1, pages[start // page_size], head]
        for place in range(start, min(start + page_size, length)):
            weight = scores[place]
            total += weight
            for i in range(query.size):
                mixed[i] += weight * _widen_to_float32(values[place - start, i])
    for i in range(query.size):
        out[i] = mixed[i] / max(total, np.float32(1e-30))


@njit(parallel=True, fastmath=True, error_model="numpy", cache=KEEP)
def _attend_past(projected, pool, table, rows, positions, out):  # type: ignore[no-untyped-def]
    tokens, _, heads, size = projected.shape
    for head in prange(heads):
        scores = np.empty(table.shape[1] * pool.shape[3], np.float32)
        mixed = np.empty(size, np.float32)
        for token in range(tokens):
            number, place = divmod(positions[token], pool.shape[3])
            page = table[rows[token], number]
            for i in range(size):
                _write_rounded(pool[0, page, head, place], i, projected[token, 1, head, i])
                _write_rounded(pool[1, page, head, place], i, projected[token, 2, head, i])
        for token in range(tokens):
            where = (pool, table[rows[token]], head, positions[token] + 1)
            _attend_token(projected[token, 0, head], *where, scores, mixed, out[token, head])


@njit(parallel=True, fastmath=True, error_model="numpy", cache=KEEP)
def _attend_text(query, pool, table, rows, lengths, out):  # type: ignore[no-untyped-def]
    tokens, heads, size = query.shape
    for head in prange(heads):
        scores = np.empty(table.shape[1] * pool.shape[3], np.float32)
        mixed = np.empty(size, np.float32)
        for token in range(tokens):
            where = (pool, table[rows[token]], head, lengths[token])
            _attend_token(query[token, head], *where, scores, mixed, out[token, head])


@njit(error_model="numpy", cache=KEEP)
def _quantise_rows(rows, unsigned, scales):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        largest, wrong = np.float32(1e-12), False
        for i in range(rows.shape[1]):
            size = abs(rows[row, i])
            largest = max(largest, size)
            wrong |= not size < np.inf
        factor = np.float32(127) / largest
        for i in range(rows.shape[1]):
            unsigned[row, i] = np.uint8(np.int32(rows[row, i] * factor + np.float32(128.5)))
        # Integers cannot represent NaN or infinity, so the scale becomes NaN instead.
        scales[row, 0] = np.float32(np.nan) if wrong else largest / np.float32(127)


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise float32 [rows, n] to uint8 with zero point 128; return it and scales [rows, 1]."""
    unsigned = torch.empty_like(rows, dtype=torch.uint8, memory_format=torch.contiguous_format)
    scales = rows.new_empty(len(rows), 1)
    _quantise_rows(rows.numpy(), unsigned.numpy(), scales.numpy())
    return unsigned, scales


def attend_past(
    projected: Tensor, pool: Tensor, table: Tensor, rows: Tensor, positions: Tensor
) -> Tensor:
    """Write each token's key and value to the cache, then let it attend to its past and itself.

    `projected` is float32 [tokens, 3, heads, head_dim]: scaled queries, keys, values; `pool` is
    [2, page, head, position in the page, head_dim]; `table` holds the pages of each row, int32
    [row, page]; `rows` and `positions` are int64 [tokens]. Returns [tokens, heads, head_dim].
    """
    out = torch.empty_like(projected[:, 0], memory_format=torch.contiguous_format)
    use_torchs_threads()
    where = (table.numpy(), rows.numpy(), positions.numpy())
    _attend_past(projected.numpy(), _as_numpy(pool), *where, out.numpy())
    return out


def attend_text(
    query: Tensor, pool: Tensor, table: Tensor, rows: Tensor, lengths: Tensor
) -> Tensor:
    """Let each token attend to the first positions of a row, which hold its text.

    `query` is float32 [tokens, heads, head_dim], scaled; `pool` and `table` are as in
    `attend_past`; `rows` and `lengths` are int64 [tokens]. Returns [tokens, heads, head_dim].
    """
    out = torch.empty_like(query)
    use_torchs_threads()
    where = (table.numpy(), rows.numpy(), lengths.numpy())
    _attend_text(query.numpy(), _as_numpy(pool), *where, out.numpy())
    return out


def _as_numpy(cached: Tensor) -> NDArray[Any]:
    """View a cache as a numpy array; bfloat16 becomes uint16."""
    assert cached.dtype in (torch.float32, torch.bfloat16)
    bits = cached if cached.dtype == torch.float32 else cached.view(torch.uint16)
    return bits.numpy()


def use_torchs_threads() -> None:
    """Set the number of numba's threads to torch's."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
