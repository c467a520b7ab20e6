"""How far a codec's copy buzzes: spectral lines at the multiples of its frame rate.

A decoder that makes the same waveform in every frame adds lines at these frequencies. Each line is
compared with the median of the bins around it, so the shape of the spectrum does not count.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from bundles.tiny.data import effects
from bundles.tiny.recipe import SAMPLE_RATE

Audio = NDArray[np.float32]
BIN_HERTZ = 5.0
LOWEST_HERTZ = 2000.0
ROUNDING_DENSITY = (2 / 2**16) ** 2 / 12 / (SAMPLE_RATE / 2)
"""Power per hertz of the error of 16-bit samples. A line below this floor is not heard."""
CHORD_HERTZ = (261.6, 329.6, 392.0)
CHORD_CLEARANCE_HERTZ = 17.0
"""Partials nearer to a multiple of 50 Hz are left out: the measure would take them for lines."""
CHORD_NOISE = 1e-3
"""Root mean square of the noise under the chord, which hides the skirts of its partials."""


def measure_lines(audio: Audio, frame_rate: float) -> NDArray[np.float64]:
    """Return the excess of each multiple of `frame_rate` above 2 kHz over its neighbours, in dB.

    The spectrum is Welch's, with bins of 5 Hz and a Hann window. The neighbours of a line are the
    bins within one frame rate on both sides, without those that its window spreads a line to.
    """
    bins = round(SAMPLE_RATE / BIN_HERTZ)
    _, density = welch(audio.astype(np.float64), SAMPLE_RATE, nperseg=bins, noverlap=bins // 2)
    density = density + ROUNDING_DENSITY
    spacing = round(frame_rate / BIN_HERTZ)
    away = np.arange(2, spacing - 1)
    around = np.concatenate([-away[::-1], away])
    first = int(np.ceil(LOWEST_HERTZ / frame_rate)) * spacing
    lines = np.arange(first, len(density) - spacing, spacing)
    neighbours = np.median(density[lines[:, None] + around], axis=1)
    excess: NDArray[np.float64] = 10 * np.log10(density[lines] / neighbours)
    return excess


def measure_many(clips: Sequence[Audio], frame_rate: float) -> dict[str, object]:
    """Return the mean excess over clips and lines, and that of the line that stands out most.

    The excess of a line is its mean over the clips: partials of notes, which meet a line in one
    clip, count little, and lines of the codec, which all clips have, count fully.
    """
    excess = np.mean([measure_lines(clip, frame_rate) for clip in clips], axis=0)
    return {"mean": round(float(excess.mean()), 2), "max": round(float(excess.max()), 2)}


def make_noise(seconds: float, seed: int, level: float = 0.1) -> Audio:
    """Return white noise with that root mean square."""
    draw = np.random.default_rng([61, seed])
    return np.asarray(level * draw.standard_normal(round(seconds * SAMPLE_RATE)), np.float32)


def make_chord(seconds: float, seed: int) -> Audio:
    """Return three notes with up to sixteen partials each, over faint noise.

    The seed draws the phases.
    """
    draw = np.random.default_rng([67, seed])
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    partials = [
        np.sin(2 * np.pi * order * root * time + draw.uniform(0, 2 * np.pi)) / order
        for root in CHORD_HERTZ
        for order in range(1, 17)
        if abs((order * root + 25) % 50 - 25) >= CHORD_CLEARANCE_HERTZ
    ]
    noise = make_noise(seconds, seed, CHORD_NOISE)
    return np.asarray(0.08 * np.sum(partials, axis=0) + noise, np.float32)


def make_rain(seconds: float, seed: int) -> Audio:
    """Return steady rain, as the recipe's effects have it."""
    return effects.render(effects.Effect("rain", "steady", far=False, seed=seed), seconds)


def make_signals(how_many: int, seconds: float) -> dict[str, list[Audio]]:
    """Return so many clips of noise, of a chord and of rain."""
    makers = {"noise": make_noise, "chord": make_chord, "rain": make_rain}
    # No such seed is one of the recipe's effects that a codec was trained on.
    return {
        name: [make(seconds, 10 * seed + 9) for seed in range(how_many)]
        for name, make in makers.items()
    }
