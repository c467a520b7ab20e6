"""Mixes clips: pure functions of float samples [channels, samples], full scale ±1."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import soxr
from numpy.typing import NDArray

from engine.params import Waveform
from graph.workflows.levels import (
    BLOCK,
    PEAK_DB,
    Samples,
    db_to_factor,
    limit_peaks,
    measure_block_loudness,
    measure_loudness,
    measure_peaks,
)

EDGE_S = 0.01
"""Seconds of the fade at a clip's start and end inside a mix, against clicks."""
DUCKED_DB = -12.0
"""The gain of audio under a voice while somebody speaks."""
ATTACK_S, RELEASE_S = 0.05, 0.5
"""Time constants in which that gain falls, and returns to 0 dB."""
BLOCK_S = 0.01
"""Seconds of a block; the voice's envelope is its root mean square in each block."""
PAUSE_DB = -30.0
"""Somebody speaks where the envelope is above this level, relative to the loudest block."""
LIMITED_DB = 9.0
"""Peaks are reduced by at most this much; a mix that then is too quiet stays too quiet."""
ROUNDS, TOLERANCE_DB = 4, 0.05
"""Limiting makes a mix less loud: its gain is corrected in rounds until it is close enough."""


@dataclass(frozen=True)
class Placed:
    """Samples and their place in a mix."""

    samples: Samples
    start: int | None = None
    """The place of the first sample; None where the samples are not in the mix."""


def sum_blocks(stems: Sequence[Placed], total: int) -> Iterator[Samples]:
    """Yield the sum of stems in blocks, `total` samples in all; no stem may be outside of it."""
    for stem in stems:
        start, length = stem.start or 0, stem.samples.shape[1]
        assert stem.start is None or 0 <= start <= start + length <= total, (start, length, total)
    for first in range(0, total, BLOCK):
        yield sum_part(stems, first, min(first + BLOCK, total))


def sum_part(stems: Sequence[Placed], first: int, end: int) -> Samples:
    """Return the samples of the sum of stems from `first` to before `end`."""
    summed = np.zeros((stems[0].samples.shape[0], end - first), np.float32)
    for stem in stems:
        if stem.start is None:
            continue
        part = stem.samples[:, max(first - stem.start, 0) : max(end - stem.start, 0)]
        at = max(stem.start - first, 0)
        summed[:, at : at + part.shape[1]] += part
    return summed


def level_stems(stems: Sequence[Placed], total: int, rate: int, target: float) -> Sequence[Placed]:
    """Set the loudness of the sum of stems in LUFS, which get the same factor at each sample.

    True peaks are limited to -1 dB, by at most `LIMITED_DB`. The gain is lower where that is not
    enough, or where the peak of a stem would be above full scale. Stems that are not in the mix
    get the gain of the whole mix, within full scale. The samples are changed in place.
    """
    stems = [_make_writable(stem) for stem in stems]
    gain, curve = _compute_gains(stems, total, rate, target)
    placed = [stem for stem in stems if stem.start is not None]
    over = max(1.0, *(_measure_peak(stem, curve) for stem in placed)) if placed else 1.0
    curve, gain = np.divide(curve, np.float32(over), out=curve), gain / over
    for stem in stems:
        if stem.start is None:
            own: NDArray[np.float32] | np.float32 = np.float32(min(gain, 1 / _measure_peak(stem)))
        else:
            own = curve[stem.start : stem.start + stem.samples.shape[1]]
        np.multiply(stem.samples, own, out=stem.samples)
    return stems


def _make_writable(stem: Placed) -> Placed:
    """Return a stem whose samples can be changed; those of a whole clip are its bytes."""
    return stem if stem.samples.flags.writeable else replace(stem, samples=stem.samples.copy())


def _compute_gains(
    stems: Sequence[Placed], total: int, rate: int, target: float
) -> tuple[float, NDArray[np.float32]]:
    """Return the factor of the whole mix, and that of each sample, with the limiter."""
    peaks = np.empty(total, np.float32)
    at = 0
    for part in measure_peaks(sum_blocks(stems, total)):
        peaks[at : at + len(part)] = part
        at += len(part)
    most = db_to_factor(PEAK_DB + LIMITED_DB) / max(float(peaks.max(initial=0)), 1e-9)
    gain, curve = 1.0, limit_peaks(peaks, rate, 1.0)
    for _ in range(ROUNDS):
        measured = measure_block_loudness(_apply_curve(sum_blocks(stems, total), curve), rate)
        if measured is None or gain == most or abs(measured - target) < TOLERANCE_DB:
            break
        gain = min(gain * db_to_factor(target - measured), most)
        del curve  # before the next one is made
        curve = limit_peaks(peaks, rate, gain)
    return gain, curve


def _apply_curve(blocks: Iterator[Samples], curve: NDArray[np.float32]) -> Iterator[Samples]:
    for number, block in enumerate(blocks):
        yield block * curve[number * BLOCK : number * BLOCK + block.shape[1]]


def _measure_peak(stem: Placed, curve: NDArray[np.float32] | None = None) -> float:
    """Return the highest sample of a stem, multiplied by the factors of the mix at its place."""
    highest = 1e-9
    for first in range(0, stem.samples.shape[1], BLOCK):
        part = stem.samples[:, first : first + BLOCK]
        if curve is not None and stem.start is not None:
            part = part * curve[stem.start + first : stem.start + first + part.shape[1]]
        highest = max(highest, float(np.abs(part).max()))
    return highest


def match_loudness(samples: Samples, rate: int, target: float) -> Samples:
    """Set the loudness of a clip without limiting its peaks; a clip without loudness stays."""
    measured = measure_loudness(samples, rate)
    return samples if measured is None else apply_gain(samples, db_to_factor(target - measured))


def apply_gain(samples: Samples, gain: float | np.float32 | NDArray[np.float32]) -> Samples:
    """Multiply samples by one factor, or by a factor for each sample."""
    made: Samples = (samples * gain).astype(np.float32)
    return made


def fade_ends(samples: Samples, into: int, out: int) -> Samples:
    """Fade the first `into` and the last `out` samples with equal power.

    A fade out over a fade in of the same length keeps the power of uncorrelated audio.
    """
    gain = np.ones(samples.shape[1], np.float32)
    gain[:into] *= _build_fade(into)
    gain[samples.shape[1] - out :] *= _build_fade(out, shift=1.0)
    return apply_gain(samples, gain)


def fade_edges(samples: Samples, rate: int) -> Samples:
    """Fade both ends for `EDGE_S` seconds."""
    edge = min(round(EDGE_S * rate), samples.shape[1] // 2)
    return fade_ends(samples, edge, edge)


def _build_fade(length: int, shift: float = 0.0) -> NDArray[np.float32]:
    """Return the quarter of a sine that rises from 0, or with `shift` 1 the one that falls to 0."""
    steps = np.arange(length) / max(length, 1) + shift
    rising: NDArray[np.float32] = np.sin(np.pi / 2 * steps).astype(np.float32)
    return rising


def close_loop(samples: Samples, length: int) -> Samples:
    """Return the first `length` samples; the samples after them are faded into the beginning.

    The last sample is followed by the first as in the clip, so the loop repeats without a step.
    """
    over = samples.shape[1] - length
    assert 0 <= over <= length, f"{samples.shape[1]} samples for a loop of {length}"
    loop = fade_ends(samples[:, :length], over, 0)
    loop[:, :over] += fade_ends(samples[:, length:], 0, over)
    return loop


def repeat_loop(loop: Samples, length: int) -> Samples:
    """Return the first `length` samples of a repeated loop."""
    return np.tile(loop, -(-length // loop.shape[1]))[:, :length]


def compute_ducking(voice: Samples, rate: int) -> NDArray[np.float32]:
    """Return the factor of the audio under a voice, for each sample of the voice."""
    size = round(BLOCK_S * rate)
    blocks = -(-voice.shape[1] // size)
    padded = np.pad(voice.mean(axis=0), (0, blocks * size - voice.shape[1]))
    envelope = np.sqrt((padded.reshape(blocks, size) ** 2).mean(axis=1))
    speaks = envelope > max(float(envelope.max()) * db_to_factor(PAUSE_DB), 1e-6)
    attack, release = (math.exp(-BLOCK_S / seconds) for seconds in (ATTACK_S, RELEASE_S))
    gains, now = np.zeros(blocks), 0.0
    for block, spoken in enumerate(speaks):
        kept = attack if spoken else release
        now = kept * now + (1 - kept) * (DUCKED_DB if spoken else 0.0)
        gains[block] = now
    place = np.arange(voice.shape[1]) / size - 0.5
    gains_db = np.interp(place, np.arange(blocks), gains).astype(np.float32)
    gain: NDArray[np.float32] = 10 ** (gains_db / np.float32(20))
    return gain


def resample(samples: Samples, before: int, after: int) -> Samples:
    """Change the sample rate; the result covers all samples."""
    if before == after:
        return samples
    length = -(-samples.shape[1] * after // before)
    made: Samples = soxr.resample(samples.T, before, after).T[:, :length]
    return np.pad(made, ((0, 0), (0, length - made.shape[1])))


def resample_loop(loop: Samples, before: int, after: int) -> Samples:
    """Change the sample rate of a loop; the result repeats without a step too."""
    if before == after:
        return loop
    step = before // math.gcd(before, after)  # this many samples are whole steps of both rates
    around = step * math.ceil(BLOCK_S * before / step)
    longer = np.pad(loop, ((0, 0), (around, around)), mode="wrap")
    first = around * after // before
    return resample(longer, before, after)[:, first : first + -(-loop.shape[1] * after // before)]


def match_channels(samples: Samples, channels: int) -> Samples:
    """Change the number of channels: each new channel is the mean of all."""
    if samples.shape[0] == channels:
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), channels, axis=0)


def cut_clip(audio: Waveform, rate: int, channels: int, samples: int) -> Samples:
    """Return the first `samples` of a clip at the rate and with the channels of a mix."""
    resampled = resample(audio.array(), audio.sample_rate, rate)
    return match_channels(resampled, channels)[:, :samples]
