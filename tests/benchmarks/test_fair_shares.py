"""Simulated keys at twice the capacity: shares, stated waits, and when what is let in starts."""

import pytest

from benchmarks.fair_shares import measure_keys

SLOTS, SPEED, MAX_WAIT_S, LONGEST_S = 3, 4.0, 60.0, 10.0


@pytest.mark.parametrize(("weights", "seed"), [((1, 1, 5), 1), ((1, 1, 1, 1, 10), 3)])
def test_what_is_let_in_starts_in_time_whatever_comes_after_it(weights: tuple[int, ...], seed: int):
    """A light key's request is passed by later ones of a heavy key, which have earlier turns."""
    keys = {f"key {number}": float(weight) for number, weight in enumerate(weights)}
    found = measure_keys(keys, SLOTS, SPEED, MAX_WAIT_S, [1.0, LONGEST_S], 20, seed)
    clip = 2 * LONGEST_S
    last_clips_s = clip / (SPEED / SLOTS) + (len(weights) - 1) * clip / SPEED
    assert found["start_most_s"] <= MAX_WAIT_S + last_clips_s
    assert found["of_capacity"] > 0.99
