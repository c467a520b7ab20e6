"""Changes the sample rate and the channels of audio that arrives in parts, as AudioCraft does."""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import soxr
import torch
from julius.resample import ResampleFrac
from numpy.typing import NDArray

from engine.errors import InvalidAudio

Samples = NDArray[np.float32]
MOST_TAPS = 10**6
"""Julius builds `before` x `after` filter taps, both divided by their greatest common divisor. All
usual rates need fewer than this; for other rates, soxr is used."""
BLOCK_S = 10
"""Seconds that Julius resamples at once; shorter audio is equal to AudioCraft's bit by bit."""


class Resampler(Protocol):
    """Changes the sample rate of audio [channels, samples] that arrives in parts."""

    def add_samples(self, samples: Samples) -> Samples:
        """Resample samples; return those that are ready."""

    def finish(self) -> Samples:
        """Return the remaining samples."""


class JuliusResampler:
    """Resamples as AudioCraft's `convert_audio` does, in blocks that overlap by the filter."""

    def __init__(self, before: int, after: int, channels: int) -> None:
        self._resample = ResampleFrac(before, after)
        step, self._after = self._resample.old_sr, self._resample.new_sr
        self._step, self._block = step, BLOCK_S * before
        self._around = math.ceil((self._resample._width + step) / step) * step
        self._parts = [np.zeros((channels, 0), np.float32)]
        self._waiting = self._context = 0
        """How many samples wait in the parts, and how many of them are context that is done."""

    def add_samples(self, samples: Samples) -> Samples:
        """Resample samples; return those that are ready."""
        self._parts.append(samples)
        self._waiting += samples.shape[1]
        if self._waiting < self._block + 2 * self._around:
            return samples[:, :0]
        joined = np.concatenate(self._parts, axis=1)
        end = (self._waiting - self._around) // self._step * self._step
        done = self._resample_from_context(joined)[:, : self._count_after(end - self._context)]
        self._parts = [joined[:, end - self._around :].copy()]
        self._waiting, self._context = self._parts[0].shape[1], self._around
        return done

    def finish(self) -> Samples:
        """Return the remaining samples."""
        return self._resample_from_context(np.concatenate(self._parts, axis=1))

    def _resample_from_context(self, samples: Samples) -> Samples:
        resampled: Samples = self._resample(torch.from_numpy(samples)).numpy()
        return resampled[:, self._count_after(self._context) :]

    def _count_after(self, samples: int) -> int:
        return samples // self._step * self._after


class SoxrResampler:
    """Resamples between any two rates, in time and memory that do not depend on their ratio."""

    def __init__(self, before: int, after: int, channels: int) -> None:
        self._stream = soxr.ResampleStream(before, after, channels, dtype="float32")
        self._channels, self._before, self._after = channels, before, after
        self._taken = self._given = 0

    def add_samples(self, samples: Samples) -> Samples:
        """Resample samples; return those that are ready."""
        self._taken += samples.shape[1]
        return self._resample_chunk(samples, last=False)

    def finish(self) -> Samples:
        """Return the remaining samples; all together are as many as Julius returns."""
        left = self._taken * self._after // self._before - self._given
        return self._resample_chunk(np.zeros((self._channels, 0), np.float32), last=True)[:, :left]

    def _resample_chunk(self, samples: Samples, *, last: bool) -> Samples:
        made: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last).T
        self._given += made.shape[1]
        return made


def build_resampler(before: int, after: int, channels: int) -> Resampler:
    """Build the resampler between two rates in Hz: Julius for usual rates, and soxr for others."""
    taps = before * after // math.gcd(before, after) ** 2
    return (JuliusResampler if taps <= MOST_TAPS else SoxrResampler)(before, after, channels)


def resample_parts(parts: Iterable[Samples], before: int, after: int) -> Iterator[Samples]:
    """Yield the parts of audio at another rate."""
    if before == after:
        yield from parts
        return
    resampler = None
    for part in parts:
        resampler = resampler or build_resampler(before, after, part.shape[0])
        yield resampler.add_samples(part)
    if resampler:
        yield resampler.finish()


def check_channels(before: int, after: int) -> None:
    """Raise InvalidAudio where `convert_channels` cannot make `after` channels."""
    if 1 < before < after:
        raise InvalidAudio(f"the file has {before} channels; send 1, {after} or more")


def convert_channels(samples: Samples, channels: int) -> Samples:
    """Convert the channels of samples [channels, samples] as AudioCraft does.

    Mono is the mean of all channels, a mono file is copied to every channel, and of too many
    channels the first are kept.
    """
    if channels == 1:
        mono: Samples = torch.from_numpy(samples).mean(0, keepdim=True).numpy()
        return mono
    return np.repeat(samples, channels, axis=0) if len(samples) == 1 else samples[:channels]
