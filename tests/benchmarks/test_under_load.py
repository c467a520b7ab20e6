"""Tests the steady rate of a load with known outcomes."""

import pytest

from benchmarks.under_load.client import Outcome, steady_rate


def build_outcome(at: float, kind: str = "200", after: float = 6.0) -> Outcome:
    return Outcome(at - after, kind, 0.1, after, 1.0)


def test_a_steady_rate_is_found_whatever_one_takes():
    for after in (0.0, 6.0, 20.0):
        every_half_second = [build_outcome(at / 2, after=after) for at in range(200)]
        assert steady_rate(every_half_second, 60.0) == pytest.approx(2.0)


def test_what_ends_before_or_after_or_badly_does_not_count():
    within, before, after = build_outcome(30.0), build_outcome(19.9), build_outcome(60.1)
    assert steady_rate([within, before, after, build_outcome(31.0, "429")], 60.0) == round(
        1 / 40, 2
    )
