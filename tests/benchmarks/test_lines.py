"""The measure of a codec's lines finds lines of a known level, and none in what has none."""

import numpy as np
import pytest

from benchmarks.quality.lines import (
    BIN_HERTZ,
    SAMPLE_RATE,
    Audio,
    make_noise,
    make_signals,
    measure_lines,
    measure_many,
)

SECONDS = 5.0
# A sine gathers its power in one bin, whose noise is the density times the window's bandwidth.
NOISE_BANDWIDTH = 1.5 * BIN_HERTZ


def add_lines(noise: Audio, frame_rate: float, level: float) -> Audio:
    """Add a sine at each multiple of the frame rate, whose bin it lifts by `level` dB."""
    draw = np.random.default_rng(7)
    in_a_bin = noise.astype(float).var() / (SAMPLE_RATE / 2) * NOISE_BANDWIDTH
    amplitude = np.sqrt(2 * in_a_bin * (10 ** (level / 10) - 1))
    time = np.arange(len(noise)) / SAMPLE_RATE
    lines = [
        np.sin(2 * np.pi * hertz * time + draw.uniform(0, 2 * np.pi))
        for hertz in np.arange(frame_rate, SAMPLE_RATE / 2, frame_rate)
    ]
    return np.asarray(noise + amplitude * np.sum(lines, axis=0), np.float32)


@pytest.mark.parametrize("level", [3.0, 10.0, 25.0])
@pytest.mark.parametrize("frame_rate", [50.0, 75.0])
def test_lines_of_a_known_level_are_measured(frame_rate: float, level: float):
    noise = make_noise(SECONDS, seed=1)
    excess = measure_lines(add_lines(noise, frame_rate, level), frame_rate)
    assert excess.mean() == pytest.approx(level, abs=0.5)
    assert excess.std() < 1.0


def test_noise_has_no_lines():
    excess = measure_lines(make_noise(SECONDS, seed=2), 50.0)
    assert len(excess) == 120, "the multiples of 50 Hz from 2,000 Hz to 7,950 Hz"
    assert abs(excess.mean()) < 0.3
    assert excess.max() < 3


def test_lines_of_another_rate_do_not_count():
    other = measure_lines(add_lines(make_noise(SECONDS, seed=3), 35.0, 20.0), 50.0)
    # The multiples of 35 Hz meet one in seven of those of 50 Hz, from 2,100 Hz on.
    assert other[2::7].mean() == pytest.approx(20, abs=1)
    assert np.median(other) < 1


def test_the_slope_of_a_spectrum_does_not_count():
    falling = np.cumsum(make_noise(SECONDS, seed=4)).astype(np.float32)
    assert abs(measure_lines(falling - falling.mean(), 50.0).mean()) < 0.5


def test_silence_has_no_lines():
    faint = add_lines(make_noise(SECONDS, seed=5, level=1e-8), 50.0, 20.0)
    assert measure_lines(faint, 50.0).max() < 1


def test_partials_that_one_clip_has_count_less_than_lines_of_all():
    plain = [make_noise(SECONDS, seed=seed) for seed in range(4)]
    lined = [add_lines(noise, 50.0, 20.0) for noise in plain]
    assert measure_many([*plain[:3], lined[3]], 50.0)["mean"] == pytest.approx(5, abs=0.5)
    assert measure_many(lined, 50.0)["mean"] == pytest.approx(20, abs=0.5)


def test_signals_have_no_lines_of_their_own():
    for name, clips in make_signals(2, SECONDS).items():
        assert {clip.shape for clip in clips} == {(80000,)}
        assert not np.array_equal(clips[0], clips[1])
        assert measure_many(clips, 50.0)["mean"] < 0.5, name
