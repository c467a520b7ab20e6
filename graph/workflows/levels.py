"""Measures loudness and true peak, and limits peaks, of float audio [channels, samples] in ±1."""

import math

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, minimum_filter1d
from scipy.signal import resample_poly
from scipy.signal.windows import hann

Samples = NDArray[np.float32]
PEAK_DB = -1.0
"""The highest true peak of a leveled mix, and the peak that AudioCraft's `audio_write` sets."""
QUIET_RMS = 2e-3
"""AudioCraft does not change the loudness of audio below this root mean square."""
LOUDNESS_BLOCK_S = 0.4
"""ITU-R BS.1770 measures in blocks of this length; a shorter clip has no loudness."""
LOOKAHEAD_S = 0.005
"""Seconds before and after a peak in which the limiter's gain changes."""
MARGIN_DB = 0.1
"""The limiter stays this far below `PEAK_DB`, because its gain changes between measured points."""


def db_to_factor(decibels: float) -> float:
    """Return the factor of a gain in decibels."""
    return float(10 ** (decibels / 20))


def measure_loudness(samples: Samples, rate: int) -> float | None:
    """Return the loudness in LUFS (ITU-R BS.1770); None if audio is too short or too quiet."""
    too_short = samples.shape[1] < LOUDNESS_BLOCK_S * rate
    if too_short or np.sqrt((samples**2).mean()) < QUIET_RMS:
        return None
    measured = float(pyloudnorm.Meter(rate).integrated_loudness(samples.T.astype(np.float64)))
    return measured if math.isfinite(measured) else None


def measure_true_peak(samples: Samples) -> float:
    """Return the peak, also between samples, by four times oversampling (BS.1770, annex 2)."""
    return float(np.abs(resample_poly(samples, 4, 1, axis=1)).max())


def compute_limiter_gain(samples: Samples, rate: int) -> NDArray[np.float32]:
    """Return the factor of each sample that keeps true peaks below `PEAK_DB`.

    The gain is computed as if the end were followed by the beginning, so that it is right for
    loops. It changes little between neighbouring samples: where it must be low, it is a mean of
    values that are low enough.
    """
    between = resample_poly(samples, 4, 1, axis=1)
    peaks = np.abs(between).max(axis=0).reshape(-1, 4).max(axis=1)
    # A peak between two samples must be low enough with the gain of either.
    peaks = np.maximum(peaks, np.roll(peaks, 1))
    enough = np.minimum(1, db_to_factor(PEAK_DB - MARGIN_DB) / np.maximum(peaks, 1e-9))
    size = 2 * round(LOOKAHEAD_S * rate) + 1
    lowest = minimum_filter1d(enough, size, mode="wrap")
    window = hann(size + 2)[1:-1]
    smooth = convolve1d(lowest, window / window.sum(), mode="wrap")
    return np.asarray(smooth, np.float32)
