"""A limiter: turns peaks down for some milliseconds, so that all else may be louder."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, minimum_filter1d
from scipy.signal import resample_poly
from scipy.signal.windows import hann

from api.audio.finishing import PEAK_DB, Samples, decibels

LOOKAHEAD_S = 0.005
"""For so long before and after a peak the gain is on its way."""
MARGIN_DB = 0.1
"""The gain moves between the points at which peaks are measured."""


def limiting(samples: Samples, rate: int) -> NDArray[np.float32]:
    """Return the factor for each sample of [channels, samples] that keeps true peaks below -1 dB.

    It goes round, so that it is right for loops as well. Between neighbouring samples it changes
    by little: where it must be low it is the mean of what is low enough all around.
    """
    between = resample_poly(samples, 4, 1, axis=1)
    peaks = np.abs(between).max(axis=0).reshape(-1, 4).max(axis=1)
    # A peak between two samples is to be low enough by the gain of either.
    peaks = np.maximum(peaks, np.roll(peaks, 1))
    enough = np.minimum(1, decibels(PEAK_DB - MARGIN_DB) / np.maximum(peaks, 1e-9))
    size = 2 * round(LOOKAHEAD_S * rate) + 1
    lowest = minimum_filter1d(enough, size, mode="wrap")
    window = hann(size + 2)[1:-1]
    smooth = convolve1d(lowest, window / window.sum(), mode="wrap")
    return np.asarray(smooth, np.float32)
