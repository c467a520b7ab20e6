"""Tests the random words against the reference vectors, and the numbers made of them."""

import numpy as np
import pytest

from engine.philox import fill_words
from engine.sampling_cpu import exponentiate, make_exponential

WORD = 2**32 - 1


def draw_words(counter: list[int], key: list[int]) -> list[int]:
    """Compute the words of a counter and a key with Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


VECTORS = [
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_the_plain_computation_gives_the_reference_vectors(counter: str, key: str, words: str):
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert draw_words(*numbers[:2]) == numbers[2]


def fill(blocks: int, key: int, *counter: int) -> np.ndarray:
    words = np.empty((4, blocks), np.uint32)
    fill_words(words, *np.array([key, *counter], np.uint64))
    return words


def test_words_are_those_of_the_plain_computation():
    """The first vector is block 0 of key 0; the last one's block number is too large to reach."""
    assert [f"{word:08x}" for word in fill(1, 0, 0, 0, 0)[:, 0]] == VECTORS[0][2].split()
    draw = np.random.default_rng(0)
    for blocks in (1, 5, 512):
        key, *counter = (int(n) for n in draw.integers(2**32, size=4))
        key += int(draw.integers(2**31)) << 32
        words = fill(blocks, key, *counter)
        for block in range(blocks):
            expected = draw_words([block, *counter], [key & WORD, key >> 32])
            assert words[:, block].tolist() == expected


def test_exponential_numbers_are_precise():
    edges = [0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, int(0.2929 * 2**32)]
    random = np.random.default_rng(0).integers(2**32, size=20_000)
    words = np.array([*edges, *random, *(2 ** np.arange(32))], np.uint32)
    made = np.array([make_exponential(word) for word in words], np.float64)
    expected = -np.log1p(-((words // 2 + 0.5) / 2**31))
    assert (np.abs(made / expected - 1) < 5e-7).all()


def test_powers_are_precise():
    numbers = np.linspace(-87, 87, 20_001).astype(np.float32)
    powers = np.array([exponentiate(number) for number in numbers], np.float64)
    assert (np.abs(powers / np.exp(numbers.astype(np.float64)) - 1) < 2.5e-7).all()
