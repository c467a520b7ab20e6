"""Draws codes on CUDA with Triton; `engine.sampling` says what is drawn.

One program draws one code. It does the steps of `engine.sampling_cpu`, with the same float32
operations in the same order and integer sums, so the codes are the same; therefore multiplications
and additions must not be fused, and divisions are rounded to nearest.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_ALL = tl.constexpr(0x7FFFFFFF)
_FINITE = tl.constexpr(0x7F7FFFFF)
_ROOT = tl.constexpr(0x3F3504F3)
_LN2, _LOG2E = tl.constexpr(math.log(2)), tl.constexpr(1 / math.log(2))
_LN2_HIGH, _LN2_LOW = tl.constexpr(355 / 512), tl.constexpr(math.log(2) - 355 / 512)
_E2, _E3, _E4 = tl.constexpr(1 / 2), tl.constexpr(1 / 6), tl.constexpr(1 / 24)
_E5, _E6, _E7 = tl.constexpr(1 / 120), tl.constexpr(1 / 720), tl.constexpr(1 / 5040)
_L3, _L5, _L7, _L9 = (tl.constexpr(1 / k) for k in (3, 5, 7, 9))
_FARTHEST = tl.constexpr(87.0)


@triton.jit
def exponentiate(x):  # type: ignore[no-untyped-def]
    """Return exp(x) for |x| <= 87."""
    whole = tl.floor(x * _LOG2E + 0.5)
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    fraction = ((r * _E7 + _E6) * r + _E5) * r + _E4
    fraction = (((fraction * r + _E3) * r + _E2) * r + 1.0) * r + 1.0
    return fraction * ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def make_exponential(word):  # type: ignore[no-untyped-def]
    """Return the Exponential(1) number -log(1 - u) of u = (word // 2 + 1/2) / 2**31."""
    place = (word >> 1).to(tl.int32)
    u = (place.to(tl.float32) + 0.5) * (2.0**-31)
    rest = ((place ^ _ALL).to(tl.float32) + 0.5) * (2.0**-31)
    shifted = rest.to(tl.int32, bitcast=True) - _ROOT
    octaves = shifted >> 23
    mantissa = ((shifted & 0x7FFFFF) + _ROOT).to(tl.float32, bitcast=True)
    x = tl.where(octaves == 0, -u, mantissa - 1.0)
    s = tl.math.div_rn(x, 2.0 + x)
    z = s * s
    series = (((z * _L9 + _L7) * z + _L5) * z + _L3) * z + 1.0
    return -(octaves.to(tl.float32) * _LN2 + 2.0 * s * series)


@triton.jit
def draw_word(key, code, book, step, variation, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Return the random word of each code."""
    counter = (code % BLOCKS, book + code * 0, step + code * 0, variation + code * 0)
    w0, w1, w2, w3 = tl.philox(key, *counter)
    place = code // BLOCKS
    return tl.where(place < 2, tl.where(place == 0, w0, w1), tl.where(place == 2, w2, w3))


@triton.jit
def find_limit(bits, masses, aim):  # type: ignore[no-untyped-def]
    """Return the least limit up to which the codes have a mass of `aim`, bit by bit."""
    limit = tl.min(bits * 0, 0) + _ALL
    for step in range(31):
        lower = limit ^ (1 << (30 - step))
        mass = tl.sum(tl.where(bits <= lower, masses, 0), 0)
        limit = tl.where(mass >= aim, lower, limit)
    return limit


@triton.jit
def keep_codes(distance, inside, top_k, top_p, CARDINALITY: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Return which codes top-p, or else top-k, keeps."""
    bits = tl.where(inside, distance.to(tl.int32, bitcast=True), _ALL)
    mass = (exponentiate(-tl.minimum(distance, _FARTHEST)) * (2.0**40)).to(tl.int64)
    mass = tl.where(inside, tl.where(top_p > 0, mass, 1), 0)
    part = (top_p.to(tl.float64) * tl.sum(mass, 0).to(tl.float64)).to(tl.int64) + 1
    most = tl.where((top_k > 0) & (top_k < CARDINALITY), top_k, CARDINALITY)
    aim = tl.where(top_p > 0, part, most)
    limit = find_limit(bits, mass, aim)
    tie = bits == limit
    earlier = tl.sum(tl.where(bits < limit, mass, 0), 0)
    earlier += tl.cumsum(tl.where(tie, mass, 0), 0) - mass
    kept = (bits < limit) | (tie & (earlier < tl.where(top_p > 0, aim, CARDINALITY)))
    return inside & kept & (distance < float("inf"))


@triton.jit
def find_least(numbers, code, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Return the first code of the least number."""
    return tl.min(tl.where(numbers == tl.min(numbers, 0), code, BLOCK), 0)


@triton.jit
def _sample_row(  # type: ignore[no-untyped-def]
    logits, integers, numbers, codes,
    BOOKS: tl.constexpr, CARDINALITY: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    request, book = tl.program_id(0), tl.program_id(1)
    code = tl.arange(0, BLOCK)
    inside = code < CARDINALITY
    integers, numbers = integers + 6 * request, numbers + 3 * request
    conditional = (tl.load(integers) * BOOKS + book) * CARDINALITY + code
    null = (tl.load(integers + 1) * BOOKS + book) * CARDINALITY + code
    given, base = tl.load(logits + conditional, inside), tl.load(logits + null, inside)
    scale, temperature, top_p = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    divisor = tl.where(temperature == 0, 1.0, temperature)
    scaled = tl.math.div_rn(base + (given - base) * scale, tl.broadcast_to(divisor, base.shape))
    size = scaled.to(tl.int32, bitcast=True) & _ALL
    finite = tl.max(tl.where(inside, size, 0), 0) <= _FINITE
    scaled = tl.where(inside, scaled, -float("inf"))
    distance = tl.max(scaled, 0) - scaled
    if temperature == 0:
        drawn = find_least(distance, code, BLOCK)
    else:
        kept = keep_codes(distance, inside, tl.load(integers + 5), top_p, CARDINALITY)
        key, variation = tl.load(integers + 2), tl.load(integers + 3).to(tl.int32)
        step = tl.load(integers + 4).to(tl.int32)
        word = draw_word(key, code, book, step, variation, (CARDINALITY + 3) // 4)
        arrival = make_exponential(word) * exponentiate(tl.minimum(distance, _FARTHEST))
        drawn = find_least(tl.where(kept, arrival, float("inf")), code, BLOCK)
    tl.store(codes + request * BOOKS + book, tl.where(finite, drawn, -1).to(tl.int64))


def sample_rows(logits: Tensor, integers: Tensor, numbers: Tensor) -> Tensor:
    """Draw the codes of all requests; arguments and result as of `engine.sampling.Kernels`."""
    _, books, cardinality = logits.shape
    codes = torch.empty(len(integers), books, dtype=torch.long, device=logits.device)
    _sample_row[len(integers), books](
        logits, integers, numbers, codes, BOOKS=books, CARDINALITY=cardinality,
        BLOCK=triton.next_power_of_2(cardinality), num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return codes
