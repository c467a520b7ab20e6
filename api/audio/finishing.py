"""Level and edges of a clip, float [channels, samples], full scale ±1."""

import math

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy.signal import resample_poly

from api.audio.output import Normalize, Output

Samples = NDArray[np.float32]
PEAK_DB, RMS_DB, LOUDNESS_DB = -1.0, -18.0, -14.0
"""Where AudioCraft's `audio_write` puts the peak, the root mean square, and the loudness (LUFS)."""
QUIET_RMS = 2e-3
"""Below it AudioCraft leaves loudness alone."""
SILENCE = 10 ** (-50 / 20)
LOUDNESS_BLOCK_S = 0.4
"""ITU-R BS.1770 measures blocks of it; shorter clips have no loudness."""


def decibels(value: float) -> float:
    """Return the factor of a gain."""
    return float(10 ** (value / 20))


def finished(samples: Samples, rate: int, output: Output) -> Samples:
    """Trim, fade and normalise a whole clip."""
    if output.trim_silence:
        samples = trimmed(samples)
    samples = faded(samples, 0, samples.shape[1], rate, output)
    return normalized(samples, rate, output.normalize)


def trimmed(samples: Samples) -> Samples:
    """Leave out what is below -50 dBFS at both ends; a clip that is silent throughout stays."""
    heard = np.flatnonzero(np.abs(samples).max(axis=0) > SILENCE)
    return samples[:, heard[0] : heard[-1] + 1] if heard.size else samples


def faded(samples: Samples, at: int, total: int, rate: int, output: Output) -> Samples:
    """Fade what lies from sample `at` of a clip of `total` samples, in equal steps."""
    if not (output.fade_in or output.fade_out):
        return samples
    place = np.arange(at, at + samples.shape[1])
    gain = np.ones(len(place))
    if output.fade_in:
        gain = np.minimum(gain, place / (output.fade_in * rate))
    if output.fade_out:
        gain = np.minimum(gain, (total - 1 - place) / (output.fade_out * rate))
    made: Samples = (samples * gain).astype(np.float32)
    return made


def normalized(samples: Samples, rate: int, how: Normalize) -> Samples:
    """Set a clip's level as AudioCraft's `normalize_audio` does, with its default headrooms.

    Where loudness would take the true peak above -1 dB, it is turned down instead of clipped.
    Silence stays, and so does what is too short to have a loudness.
    """
    if how == "clip":
        return samples.clip(-decibels(PEAK_DB), decibels(PEAK_DB))
    if how == "none" or not samples.any():
        return samples
    if how == "peak":
        gain = decibels(PEAK_DB) / np.abs(samples).max()
    elif how == "rms":
        gain = decibels(RMS_DB) / np.sqrt((samples.mean(axis=0) ** 2).mean())
    else:
        gain = loudness_gain(samples, rate, LOUDNESS_DB)
    leveled: Samples = (samples * gain).astype(np.float32)
    return leveled.clip(-1, 1)


def loudness(samples: Samples, rate: int) -> float | None:
    """Return it in LUFS (ITU-R BS.1770), or None of what is too short or too quiet to have one."""
    too_short = samples.shape[1] < LOUDNESS_BLOCK_S * rate
    if too_short or np.sqrt((samples**2).mean()) < QUIET_RMS:
        return None
    measured = float(pyloudnorm.Meter(rate).integrated_loudness(samples.T.astype(np.float64)))
    return measured if math.isfinite(measured) else None


def loudness_gain(samples: Samples, rate: int, target: float) -> float:
    """Return the factor that gives a clip a loudness, or takes its true peak to -1 dB, if less.

    1 for what has no loudness.
    """
    measured = loudness(samples, rate)
    if measured is None:
        return 1.0
    return min(decibels(target - measured), decibels(PEAK_DB) / true_peak(samples))


def true_peak(samples: Samples) -> float:
    """Return the peak between samples as well, by four times as many (BS.1770, annex 2)."""
    return float(np.abs(resample_poly(samples, 4, 1, axis=1)).max())
