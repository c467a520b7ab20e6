"""Arrivals to replay, drawn by a seed: each family's parameters differ from trace to trace."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOUR = 3600.0
SECONDS, SHARES = (2.0, 5.0, 10.0, 15.0, 30.0), (0.15, 0.3, 0.3, 0.15, 0.1)
"""Of audio that requests ask for, and how many of them do."""
Rate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Requests a second, at times."""


@dataclass(frozen=True)
class Trace:
    """Requests, by when they come and how much audio they ask for."""

    name: str
    at: NDArray[np.float64]
    seconds: NDArray[np.float64]
    ends: float


def draw_steady(seed: int, peak: float) -> Trace:
    """Two hours at one rate."""
    return _draw_arrivals("steady", seed, peak, 2 * HOUR, lambda at: np.full(len(at), peak))


def draw_burst(seed: int, peak: float) -> Trace:
    """Two hours in which the rate rises to a multiple, again and again, for minutes."""
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
    """A day's rise and fall, in six hours."""
    draw = np.random.default_rng([seed, 2])
    low, phase = draw.uniform(0.1, 0.5), draw.uniform(0, 2 * math.pi)

    def rate_at(at: NDArray[np.float64]) -> NDArray[np.float64]:
        wave = 0.5 - 0.5 * np.cos(2 * math.pi * at / (6 * HOUR) + phase)
        return np.asarray(peak * (low + (1 - low) * wave))

    return _draw_arrivals("daily", seed, peak, 6 * HOUR, rate_at)


def draw_flash(seed: int, peak: float) -> Trace:
    """An hour with a crowd, eight times as many as before, at once, for ten minutes."""
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
    """Return a trace a seed; their peaks, in requests a second, are drawn from an interval."""
    peaks = [_log_uniform(np.random.default_rng([seed, 4]), *peak) for seed in seeds]
    return [FAMILIES[family](seed, one) for seed, one in zip(seeds, peaks, strict=True)]


def _log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def _draw_arrivals(name: str, seed: int, peak: float, ends: float, rate: Rate) -> Trace:
    """Draw a Poisson process of a varying rate, by thinning one of its peak."""
    draw = np.random.default_rng([seed, 5])
    at = np.sort(draw.uniform(0, ends, draw.poisson(peak * ends)))
    at = at[draw.uniform(size=len(at)) * peak < rate(at)]
    return Trace(name, at, draw.choice(SECONDS, p=SHARES, size=len(at)), ends)
