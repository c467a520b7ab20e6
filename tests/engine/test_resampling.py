"""Tests that any two rates are resampled, in bounded time and memory."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.resampling import JuliusResampler, SoxrResampler, build_resampler, resample_parts

PEAK = """
import resource, sys
import numpy as np
from engine.resampling import resample_parts
before, after = map(int, sys.argv[1:])
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
second = np.zeros((2, before), np.float32)
for part in resample_parts((second for _ in range(30)), before, after):
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print((used.ru_maxrss - idle) // 1024, used.ru_utime)
"""


def make_tone(rate: int, seconds: float, hertz: float = 100.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)[
        None
    ]


def resample(samples: np.ndarray, before: int, after: int, size: int) -> np.ndarray:
    parts = [samples[:, at : at + size] for at in range(0, samples.shape[1], size)]
    return np.concatenate(list(resample_parts(parts, before, after)), axis=1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (8009, 32000),
        (44101, 32000),
        (191999, 32000),
        (1000, 95999),
        (44100, 32000),
        (192000, 16000),
    ],
)
def test_no_rate_costs_much(before: int, after: int):
    """Julius would build up to 24.6 GB of filters for these rates, which are odd or usual."""
    command = [sys.executable, "-c", PEAK, str(before), str(after)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout.split()[0]) < 300, "MB"


@given(st.integers(1000, 192000), st.integers(8000, 48000), st.integers(1, 5000))
@settings(deadline=None, max_examples=30)
def test_any_rate_keeps_a_tone(before: int, after: int, size: int):
    made = resample(make_tone(before, 0.5), before, after, size)
    expected = make_tone(after, 0.6)[:, : made.shape[1]]
    assert made.shape[1] == before // 2 * after // before
    inner = slice(after // 10, -after // 10)
    np.testing.assert_allclose(made[:, inner], expected[:, inner], atol=2e-3)


@pytest.mark.parametrize("before", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("after", [16000, 24000, 32000, 44100, 48000])
def test_usual_rates_are_resampled_as_audiocraft_does(before: int, after: int):
    assert before == after or isinstance(build_resampler(before, after, 1), JuliusResampler)


def test_odd_rates_are_resampled_by_soxr():
    assert isinstance(build_resampler(44101, 32000, 1), SoxrResampler)
