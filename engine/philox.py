"""Draws random words by a counter-based generator, Philox4x32-10, for the CPU with numba.

Four words come from a counter of four words and a key of two, so each draw has its own number, no
state is kept, and the words are the same on every device (`engine.sampling_cuda` calls Triton's).
Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
Reference vectors, from the file kat_vectors of its library Random123, counter, key, words:

    00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8
    ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd
    243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1
"""

import numpy as np
from numba import njit

from engine.kernels_cpu import KEEP

_MASK, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_FIRST_FACTOR, _SECOND_FACTOR = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_FIRST_STEP, _SECOND_STEP = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@njit(error_model="numpy", cache=KEEP)
def fill_words(words, key, second, third, fourth):  # type: ignore[no-untyped-def]
    """Fill uint32 [4, blocks] with the words of the counters (block, second, third, fourth).

    All arguments are uint64: `key` has two words, the lower one first, and the others have one.
    """
    for block in range(words.shape[1]):
        c0, c1, c2, c3 = np.uint64(block), second, third, fourth
        k0, k1 = key & _MASK, key >> _HALF
        for _ in range(10):
            a, b = c0 * _FIRST_FACTOR, c2 * _SECOND_FACTOR
            c0, c2 = (b >> _HALF) ^ c1 ^ k0, (a >> _HALF) ^ c3 ^ k1
            c1, c3 = b & _MASK, a & _MASK
            k0, k1 = (k0 + _FIRST_STEP) & _MASK, (k1 + _SECOND_STEP) & _MASK
        words[0, block], words[1, block], words[2, block], words[3, block] = c0, c1, c2, c3
