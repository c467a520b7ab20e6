"""The benchmark of generated clips compares their loudness with that of the renders."""

import numpy as np
import pytest

from benchmarks.quality.generation import SECOND, compare_loudness, measure_levels
from benchmarks.quality.lines import make_noise


def test_half_the_amplitude_is_six_units_less_and_silence_is_far_below():
    real = [make_noise(2.0, seed) for seed in range(3)]
    silent = np.zeros(2 * SECOND, np.float32)
    half, none, same = compare_loudness([real[0] / 2, silent, real[2]], real)
    assert (half, same) == pytest.approx((-6.02, 0), abs=0.01)
    assert none < -40


def test_share_of_clips_with_the_right_level():
    real = [make_noise(2.0, seed) for seed in range(4)]
    made = [real[0] * 0.8, real[1] / 2, real[2] * 1.3, real[3] * 1.5]
    rows = {row["what"]: row for row in measure_levels("music", made, real)}
    assert rows["within 3 LU of the render"]["mean"] == 0.5
    assert rows["silent"]["mean"] == rows["clipped"]["mean"] == 0
