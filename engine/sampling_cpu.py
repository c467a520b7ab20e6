"""Draws codes on the CPU with numba; `engine.sampling` says what is drawn.

No operation here may be fused or reordered (no fastmath), and sums are of integers: the codes are
those of `engine.sampling_cuda`, which does the same steps in the same order.
"""

import math

import numpy as np
from numba import njit, prange
from torch import Tensor

from engine.kernels_cpu import KEEP, use_torchs_threads
from engine.philox import fill_words

_FINITE, _ALL = np.int32(0x7F7FFFFF), np.int32(0x7FFFFFFF)
"""The bits of the largest finite float32, and the largest int32."""
_ROOT = np.int32(0x3F3504F3)
"""The bits of the square root of 1/2."""
_LN2, _LOG2E = np.float32(math.log(2)), np.float32(1 / math.log(2))
_LN2_HIGH, _LN2_LOW = np.float32(355 / 512), np.float32(math.log(2) - 355 / 512)
_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
_L3, _L5, _L7, _L9 = (np.float32(1 / k) for k in (3, 5, 7, 9))
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)
_UNIT, _MASS = np.float32(2**-31), np.float32(2**40)
_FARTHEST = np.float32(87)
"""Codes farther than this from the likeliest one, exp(-87), are never drawn nor counted."""


@njit(error_model="numpy", cache=KEEP)
def exponentiate(x):  # type: ignore[no-untyped-def]
    """Return exp(x) for |x| <= 87 by its Taylor polynomial, with an error below 2 units."""
    whole = np.floor(x * _LOG2E + _HALF)
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    fraction = ((r * _E7 + _E6) * r + _E5) * r + _E4
    fraction = (((fraction * r + _E3) * r + _E2) * r + _ONE) * r + _ONE
    return fraction * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(error_model="numpy", cache=KEEP)
def make_exponential(word):  # type: ignore[no-untyped-def]
    """Return the Exponential(1) number -log(1 - u) of u = (word // 2 + 1/2) / 2**31.

    Small numbers, which win races, keep all bits: log(1 - u) is computed from u, not from 1 - u.
    """
    place = np.int32(word >> np.uint32(1))
    u = (np.float32(place) + _HALF) * _UNIT
    rest = (np.float32(np.int32(place ^ _ALL)) + _HALF) * _UNIT
    shifted = np.int32(np.float32(rest).view(np.int32) - _ROOT)
    octaves = np.int32(shifted >> np.int32(23))
    mantissa = np.int32((shifted & np.int32(0x7FFFFF)) + _ROOT).view(np.float32)
    x = -u if octaves == 0 else mantissa - _ONE
    s = x / (_TWO + x)
    z = s * s
    series = (((z * _L9 + _L7) * z + _L5) * z + _L3) * z + _ONE
    return -(np.float32(octaves) * _LN2 + _TWO * s * series)


@njit(error_model="numpy", cache=KEEP)
def measure_distances(conditional, null, scale, temperature, distances):  # type: ignore[no-untyped-def]
    """Write how far each guided logit over the temperature is below the greatest.

    Returns whether all of them are finite numbers.
    """
    for code in range(len(distances)):
        guided = null[code] + (conditional[code] - null[code]) * scale
        distances[code] = guided / temperature
    largest, greatest = np.int32(0), np.int32(-(2**31))
    bits = distances.view(np.int32)
    for code in range(len(bits)):  # integers are in the order of the numbers whose bits they have
        size = bits[code] & _ALL
        largest = max(largest, size)
        greatest = max(greatest, np.int32(bits[code] ^ (_ALL & (bits[code] >> np.int32(31)))))
    most = np.int32(greatest ^ (_ALL & (greatest >> np.int32(31)))).view(np.float32)
    for code in range(len(distances)):
        distances[code] = most - distances[code]
    return largest <= _FINITE


@njit(error_model="numpy", cache=KEEP)
def _find_limit(bits, masses, aim):  # type: ignore[no-untyped-def]
    """Return the least limit up to which the codes have a mass of `aim`, bit by bit."""
    limit = _ALL
    for bit in range(30, -1, -1):
        lower = np.int32(limit ^ np.int32(1 << bit))
        mass = np.int64(0)
        for code in range(len(bits)):
            mass += masses[code] if bits[code] <= lower else np.int64(0)
        if mass >= aim:
            limit = lower
        if mass == aim:  # lower limits have less, or exclude none of these codes
            break
    return limit


@njit(error_model="numpy", cache=KEEP)
def _find_top_p(distances, top_p, masses):  # type: ignore[no-untyped-def]
    """Return the limit of top-p; of the codes at the limit, exclude those that come too late."""
    bits, total = distances.view(np.int32), np.int64(0)
    for code in range(len(bits)):
        masses[code] = np.int64(exponentiate(-min(distances[code], _FARTHEST)) * _MASS)
        total += masses[code]
    aim = np.int64(np.float64(top_p) * np.float64(total)) + 1
    limit, mass = _find_limit(bits, masses, aim), np.int64(0)
    for code in range(len(bits)):
        mass += masses[code] if bits[code] < limit else np.int64(0)
    for code in range(len(bits)):
        if bits[code] == limit:
            bits[code] = limit if mass < aim else _ALL
            mass += masses[code]
    return limit


@njit(error_model="numpy", cache=KEEP)
def exclude_codes(distances, top_k, top_p):  # type: ignore[no-untyped-def]
    """Make the distances infinite of the codes that top-p, or else top-k, excludes."""
    bits, masses = distances.view(np.int32), np.ones(len(distances), np.int64)
    if top_p > 0:
        limit = _find_top_p(distances, top_p, masses)
    elif 0 < top_k < len(bits):
        limit = _find_limit(bits, masses, top_k)
    else:
        limit = _ALL
    for code in range(len(bits)):
        distances[code] = distances[code] if bits[code] <= limit else np.float32(np.inf)


@njit(error_model="numpy", cache=KEEP)
def _run_race(distances, seed, variation, step, book):  # type: ignore[no-untyped-def]
    """Return the code that arrives first; codes at infinity do not take part."""
    words = np.empty((4, (len(distances) + 3) // 4), np.uint32)
    fill_words(words, np.uint64(seed), np.uint64(book), np.uint64(step), np.uint64(variation))
    word_of_code, race = words.ravel(), np.empty(len(distances), np.float32)
    for code in range(len(race)):
        race[code] = make_exponential(word_of_code[code])
    for code in range(len(race)):
        arrival = race[code] * exponentiate(min(distances[code], _FARTHEST))
        race[code] = arrival if distances[code] < np.inf else np.float32(np.inf)
    return _find_least(race)


@njit(error_model="numpy", cache=KEEP)
def _find_least(numbers):  # type: ignore[no-untyped-def]
    """Return the first place of the least of numbers that are at least 0."""
    bits, least = numbers.view(np.int32), _ALL
    for place in range(len(bits)):
        least = min(least, bits[place])
    place = 0
    while bits[place] != least:
        place += 1
    return place


@njit(parallel=True, error_model="numpy", cache=KEEP)
def _sample_rows(logits, integers, numbers, codes):  # type: ignore[no-untyped-def]
    requests, books = codes.shape
    for row in prange(requests * books):
        request, book = row // books, row % books
        conditional, null, seed, variation, step, top_k = integers[request]
        scale, temperature, top_p = numbers[request]
        greedy = temperature == 0
        divisor = _ONE if greedy else temperature
        distances = np.empty(logits.shape[2], np.float32)
        given = logits[conditional, book], logits[null, book]
        if not measure_distances(*given, scale, divisor, distances):
            codes[request, book] = -1
        elif greedy:
            codes[request, book] = _find_least(distances)
        else:
            exclude_codes(distances, top_k, top_p)
            codes[request, book] = _run_race(distances, seed, variation, step, book)


def sample_rows(logits: Tensor, integers: Tensor, numbers: Tensor) -> Tensor:
    """Draw the codes of all requests; arguments and result as of `engine.sampling.Kernels`."""
    codes = integers.new_empty(len(integers), logits.shape[1])
    use_torchs_threads()
    _sample_rows(logits.numpy(), integers.numpy(), numbers.numpy(), codes.numpy())
    return codes
