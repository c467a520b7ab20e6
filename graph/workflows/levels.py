"""Measures loudness and true peak, and limits peaks, of float audio [channels, samples] in ±1."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from pyloudnorm.iirfilter import IIRfilter
from scipy.ndimage import convolve1d, minimum_filter1d
from scipy.signal import lfilter, resample_poly
from scipy.signal.windows import hann

Samples = NDArray[np.float32]
PEAK_DB = -1.0
"""The highest true peak of a leveled mix, and the peak that AudioCraft's `audio_write` sets."""
QUIET_RMS = 2e-3
"""AudioCraft does not change the loudness of audio below this root mean square."""
LOUDNESS_BLOCK_S, HOP_S = 0.4, 0.1
"""ITU-R BS.1770 measures in blocks of this length, one in each hop; shorter clips have no
loudness."""
SILENT_LUFS, GATE_LU = -70.0, -10.0
"""Its gates: blocks below the first, or this far below the mean of the others, do not count."""
LOOKAHEAD_S = 0.005
"""Seconds before and after a peak in which the limiter's gain changes."""
BLOCK = 2**16
"""The samples that are processed at once, since some steps need many times their memory."""
OVERSAMPLING, REACH = 4, 10
"""BS.1770 measures true peaks at four times the rate; SciPy's filter for that reaches ten samples
to both sides. It is a plain FIR filter, so blocks are exact; soxr's is longer, and is not aligned
to blocks."""
MARGIN_DB = 0.1
"""The limiter stays this far below `PEAK_DB`, because its gain changes between measured points."""


def db_to_factor(decibels: float) -> float:
    """Return the factor of a gain in decibels."""
    return float(10 ** (decibels / 20))


def split_blocks(samples: Samples) -> Iterator[Samples]:
    """Yield samples in blocks."""
    for start in range(0, samples.shape[1], BLOCK):
        yield samples[:, start : start + BLOCK]


def measure_loudness(samples: Samples, rate: int) -> float | None:
    """Return the loudness in LUFS (ITU-R BS.1770); None if audio is too short or too quiet."""
    return measure_block_loudness(split_blocks(samples), rate)


def measure_block_loudness(blocks: Iterable[Samples], rate: int) -> float | None:
    """Return the loudness of consecutive blocks, as `measure_loudness` does."""
    total = squares = 0.0
    hops, hop = [np.zeros(0)], round(HOP_S * rate)
    weighting, rest = KWeighting(rate), np.zeros(0)
    for block in blocks:
        total += block.size
        squares += float((block.astype(np.float64) ** 2).sum())
        power = np.concatenate([rest, (weighting.filter_block(block) ** 2).sum(axis=0)])
        whole = len(power) // hop * hop
        hops.append(power[:whole].reshape(-1, hop).mean(axis=1))
        rest = power[whole:]
    powers = np.concatenate(hops)
    size = round(LOUDNESS_BLOCK_S / HOP_S)
    if len(powers) < size or math.sqrt(squares / total) < QUIET_RMS:
        return None
    return _gate_powers(np.convolve(powers, np.full(size, 1 / size), mode="valid"))


def _gate_powers(powers: NDArray[np.float64]) -> float | None:
    """Return the loudness of the blocks that pass both gates; None where none does."""
    heard = powers[powers > _lufs_to_power(SILENT_LUFS)]
    if not heard.size:
        return None
    heard = heard[heard > heard.mean() * 10 ** (GATE_LU / 10)]
    return float(-0.691 + 10 * np.log10(heard.mean()))


def _lufs_to_power(lufs: float) -> float:
    return float(10 ** ((lufs + 0.691) / 10))


class KWeighting:
    """The two filters of BS.1770, for audio that arrives in blocks."""

    def __init__(self, rate: int) -> None:
        shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, rate, "high_shelf")
        self._filters = [shelf, IIRfilter(0.0, 0.5, 38.0, rate, "high_pass")]
        self._states: list[NDArray[np.float64] | None] = [None, None]

    def filter_block(self, block: Samples) -> NDArray[np.float64]:
        """Return the filtered samples of the next block."""
        weighted = block.astype(np.float64)
        for number, one in enumerate(self._filters):
            state = self._states[number]
            if state is None:
                state = np.zeros((len(block), len(one.a) - 1))
            weighted, self._states[number] = lfilter(one.b, one.a, weighted, zi=state)
            weighted *= one.passband_gain
        return weighted


def measure_true_peak(samples: Samples) -> float:
    """Return the peak, also between samples, by four times oversampling (BS.1770, annex 2)."""
    return max((float(peaks.max()) for peaks in measure_peaks(split_blocks(samples))), default=0.0)


def measure_peaks(blocks: Iterable[Samples]) -> Iterator[NDArray[np.float32]]:
    """Yield for each sample the highest level from it to the next one, in all channels."""
    kept: Samples | None = None
    known = 0  # samples at the beginning of `kept` that are only context
    for block in blocks:
        kept = block if kept is None else np.concatenate([kept, block], axis=1)
        ready = kept.shape[1] - REACH
        if ready <= known:
            continue
        yield _oversample(kept)[known:ready]
        first = max(ready - REACH, 0)
        kept, known = kept[:, first:].copy(), ready - first
    if kept is not None and kept.shape[1] > known:
        yield _oversample(kept)[known:]


def _oversample(samples: Samples) -> NDArray[np.float32]:
    between = np.abs(resample_poly(samples, OVERSAMPLING, 1, axis=1)).max(axis=0)
    peaks: NDArray[np.float32] = between.reshape(-1, OVERSAMPLING).max(axis=1)
    return peaks


def compute_limiter_gain(samples: Samples, rate: int) -> NDArray[np.float32]:
    """Return the factor of each sample that keeps true peaks below `PEAK_DB`."""
    return limit_peaks(np.concatenate(list(measure_peaks(split_blocks(samples)))), rate, 1.0)


def limit_peaks(peaks: NDArray[np.float32], rate: int, gain: float) -> NDArray[np.float32]:
    """Return `gain` times the factor that keeps peaks, multiplied by it, below `PEAK_DB`.

    The factor is computed as if the end were followed by the beginning, so that it is right for
    loops. It changes little between neighbouring samples: where it must be low, it is a mean of
    values that are low enough.
    """
    size = 2 * round(LOOKAHEAD_S * rate) + 1
    window = hann(size + 2)[1:-1]
    curve = np.full(len(peaks), gain, np.float32)
    for start in range(0, len(peaks), BLOCK):
        end = min(start + BLOCK, len(peaks))
        around = peaks.take(range(start - size - 1, end + size), mode="wrap") * np.float32(gain)
        # A peak between two samples must be low enough with the gain of either.
        around = np.maximum(around[1:], around[:-1])
        enough = np.minimum(1, db_to_factor(PEAK_DB - MARGIN_DB) / np.maximum(around, 1e-9))
        if enough.min() < 1:
            lowest = minimum_filter1d(enough, size)
            smooth = convolve1d(lowest, window / window.sum())
            curve[start:end] *= smooth[size : size + end - start]
    return curve
