"""Draws traces of arrivals from a seed; each trace of a family has other parameters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOUR = 3600.0
SECONDS, SHARES = (2.0, 5.0, 10.0, 15.0, 30.0), (0.15, 0.3, 0.3, 0.15, 0.1)
"""Clip durations in seconds, and the share of requests with each."""
Rate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function from times to requests per second."""


@dataclass(frozen=True)
class Trace:
    """The arrival times of requests, and the seconds of audio that each asks for."""

    name: str
    at: NDArray[np.float64]
    seconds: NDArray[np.float64]
    ends: float


def draw_steady(seed: int, peak: float) -> Trace:
    """Draw two hours at a constant rate."""
    return _draw_arrivals("steady", seed, peak, 2 * HOUR, lambda at: np.full(len(at), peak))


def draw_burst(seed: int, peak: float) -> Trace:
    """Draw two hours in which the rate rises to a multiple for some minutes, repeatedly."""
    draw = np.random.default_rng([seed, 1])
    low = peak / draw.uniform(1.5, 4)
    on_s, off_s = _log_uniform(draw, 120, 1200), _log_uniform(draw, 300, 2400)
    ramp_s = draw.uniform(0, 60)
    times, rates, now = [0.0], [low], 0.0
    while now < 2 * HOUR:
        for mean_s, before, after in ((off_s, low, peak), (on_s, peak, low)):
            now += draw.exponential(mean_s)
            times += [now, now + ramp_s]
            rates += [before, after]
            now += ramp_s
    return _draw_arrivals("burst", seed, peak, 2 * HOUR, lambda at: np.interp(at, times, rates))


def draw_daily(seed: int, peak: float) -> Trace:
    """Draw the rise and fall of a day, compressed to six hours."""
    draw = np.random.default_rng([seed, 2])
    low, phase = draw.uniform(0.1, 0.5), draw.uniform(0, 2 * math.pi)

    def rate_at(at: NDArray[np.float64]) -> NDArray[np.float64]:
        wave = 0.5 - 0.5 * np.cos(2 * math.pi * at / (6 * HOUR) + phase)
        return np.asarray(peak * (low + (1 - low) * wave))

    return _draw_arrivals("daily", seed, peak, 6 * HOUR, rate_at)


def draw_flash(seed: int, peak: float) -> Trace:
    """Draw an hour with eight times the rate for ten minutes, without a ramp."""
    start = np.random.default_rng([seed, 3]).uniform(0.3, 0.6) * HOUR

    def rate_at(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where((at > start) & (at < start + 600), peak, peak / 8)

    return _draw_arrivals("flash crowd", seed, peak, HOUR, rate_at)


FAMILIES = {
    "steady": draw_steady,
    "burst": draw_burst,
    "daily": draw_daily,
    "flash crowd": draw_flash,
}


def draw_traces(family: str, seeds: Sequence[int], peak: tuple[float, float]) -> list[Trace]:
    """Draw a trace for each seed; `peak` is the range of peak rates, in requests per second."""
    peaks = [_log_uniform(np.random.default_rng([seed, 4]), *peak) for seed in seeds]
    return [FAMILIES[family](seed, one) for seed, one in zip(seeds, peaks, strict=True)]


def _log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def _draw_arrivals(name: str, seed: int, peak: float, ends: float, rate: Rate) -> Trace:
    """Draw a Poisson process with a varying rate, by thinning a process with the peak rate."""
    draw = np.random.default_rng([seed, 5])
    at = np.sort(draw.uniform(0, ends, draw.poisson(peak * ends)))
    at = at[draw.uniform(size=len(at)) * peak < rate(at)]
    return Trace(name, at, draw.choice(SECONDS, p=SHARES, size=len(at)), ends)
