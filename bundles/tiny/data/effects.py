"""Synthesises sound effects of twelve classes, each varied by its number alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

SAMPLE_RATE = 16000
Audio = NDArray[np.float64]
Draw = np.random.Generator


@dataclass(frozen=True)
class Effect:
    """The properties of a sound effect, in the words of the captions."""

    kind: str
    pace: str
    """The speed or strength: "light", "steady" or "heavy"."""
    far: bool
    """Whether it sounds muffled and soft, as from a distance."""
    seed: int


PACES = {"light": 0.6, "steady": 1.0, "heavy": 1.6}


def filter_band(noise: Audio, low: float, high: float) -> Audio:
    """Filter a signal to the band between two frequencies in Hz."""
    edges = [max(low, 20.0), min(high, 7800.0)]
    return np.asarray(sosfilt(butter(2, edges, "band", fs=SAMPLE_RATE, output="sos"), noise))


def draw_curve(draw: Draw, length: int, hertz: float) -> Audio:
    """Draw a smooth random curve between 0 and 1 with about `hertz` changes per second."""
    points = max(int(length / SAMPLE_RATE * hertz) + 3, 4)
    at = np.linspace(0, points - 1, length)
    return np.asarray(np.interp(at, np.arange(points), draw.uniform(0, 1, points)))


def decay_curve(length: int, half_life: float) -> Audio:
    """Return an exponential decay with a half-life in seconds."""
    return np.asarray(0.5 ** (np.arange(length) / SAMPLE_RATE / half_life))


def add_sound(target: Audio, sound: Audio, at: float) -> None:
    """Add a sound to `target` in place, at a time in seconds."""
    start = max(int(at * SAMPLE_RATE), 0)
    end = min(start + len(sound), len(target))
    if start < end:
        target[start:end] += sound[: end - start]


def draw_times(draw: Draw, seconds: float, interval: float, jitter: float) -> list[float]:
    """Draw times at an interval in seconds, each moved by up to `jitter` of the interval."""
    times = np.arange(draw.uniform(0, interval), seconds, interval)
    return [float(t + interval * jitter * draw.uniform(-1, 1)) for t in times]


def sum_phase(frequency: Audio) -> Audio:
    """Return the phase of a frequency curve in Hz, by summing over time."""
    return np.asarray(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)


def make_rain(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.25 * filter_band(draw.standard_normal(length), 1500, 7500)
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 60 * pace)):
        drop = draw.uniform(0.2, 1) * draw.standard_normal(200) * decay_curve(200, 0.0012)
        add_sound(audio, drop, float(at))
    return audio


def make_wind(draw: Draw, length: int, pace: float) -> Audio:
    noise = draw.standard_normal(length)
    gusts = 0.15 + draw_curve(draw, length, 0.5 * pace) ** 2
    tone = np.sin(sum_phase(250 + 350 * draw_curve(draw, length, 0.7)))
    howl = tone * draw_curve(draw, length, 1.0) ** 3
    low, high = filter_band(noise, 100, 500), filter_band(noise, 500, 1200)
    return gusts * (low + 0.4 * high + 0.12 * howl)


def make_waves(draw: Draw, length: int, pace: float) -> Audio:
    noise, period = draw.standard_normal(length), 4.0 / pace
    time = np.arange(length) / SAMPLE_RATE + draw.uniform(0, period)
    swell = ((time % period) / period) ** 2 * (1 - ((time % period) / period) ** 12)
    return swell * filter_band(noise, 300, 4500) + 0.25 * filter_band(noise, 60, 400)


def make_thunder(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.02 * filter_band(draw.standard_normal(length), 50, 300)
    for at in draw_times(draw, length / SAMPLE_RATE, 3.0 / pace, 0.2):
        size = 3 * SAMPLE_RATE
        roll = filter_band(draw.standard_normal(size), 30, 220) * decay_curve(size, 0.6)
        crack = 0.4 * filter_band(draw.standard_normal(6000), 300, 3000) * decay_curve(6000, 0.03)
        add_sound(audio, 3 * roll * (0.4 + draw_curve(draw, len(roll), 9)), at)
        add_sound(audio, crack, at)
    return audio


def make_birds(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.004 * draw.standard_normal(length)
    voices = draw.uniform(2200, 5200, 3)
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 2.5 * pace) + 1):
        pitch, size = float(draw.choice(voices)), int(draw.uniform(0.05, 0.16) * SAMPLE_RATE)
        sweep = np.linspace(0, 1, size)
        shape = np.sin(np.pi * sweep)
        for count in range(int(draw.integers(2, 6))):
            tone = np.sin(
                sum_phase(pitch * (1 + 0.25 * np.sin(2 * np.pi * sweep * draw.uniform(1, 3))))
            )
            add_sound(audio, 0.5 * shape * tone, float(at) + count * size / SAMPLE_RATE * 1.4)
    return audio


def make_bell(draw: Draw, length: int, pace: float) -> Audio:
    audio, root = np.zeros(length), draw.uniform(280, 620)
    size = 4 * SAMPLE_RATE
    time = np.arange(size) / SAMPLE_RATE
    partials = ((0.5, 1.2), (1, 1.0), (1.2, 0.6), (1.5, 0.5), (2, 0.45), (2.7, 0.25), (4.1, 0.12))
    stroke = sum(
        loud * np.sin(2 * np.pi * root * ratio * time) * decay_curve(size, 0.9 / ratio)
        for ratio, loud in partials
    )
    for at in draw_times(draw, length / SAMPLE_RATE, 1.8 / pace, 0.02):
        add_sound(audio, np.asarray(stroke), at)
    return audio


def make_siren(draw: Draw, length: int, pace: float) -> Audio:
    time = np.arange(length) / SAMPLE_RATE
    turn = np.sin(2 * np.pi * 0.35 * pace * time + draw.uniform(0, 6))
    curve = np.sign(turn) if draw.random() < 0.4 else turn
    sung = sum_phase(draw.uniform(700, 900) * 2 ** (0.45 * curve))
    return np.asarray(np.sin(sung) + 0.4 * np.sin(2 * sung) + 0.2 * np.sin(3 * sung))


def make_engine(draw: Draw, length: int, pace: float) -> Audio:
    turns = draw.uniform(22, 34) * pace * (1 + 0.25 * draw_curve(draw, length, 0.4))
    angle = sum_phase(turns)
    audio = sum(np.sin(k * angle + draw.uniform(0, 6)) / k for k in range(1, 24))
    puffs = (0.5 + 0.5 * np.sin(angle)) ** 4 * filter_band(draw.standard_normal(length), 80, 1500)
    return np.asarray(audio + 1.2 * puffs)


def make_footsteps(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.003 * draw.standard_normal(length)
    heel = draw.uniform(80, 160)
    for number, at in enumerate(draw_times(draw, length / SAMPLE_RATE, 0.62 / pace, 0.04)):
        size = 2400
        thud = np.sin(2 * np.pi * heel * np.arange(size) / SAMPLE_RATE) * decay_curve(size, 0.018)
        scuff = 0.5 * filter_band(draw.standard_normal(size), 800, 4000) * decay_curve(size, 0.02)
        add_sound(audio, (1.0 if number % 2 else 0.85) * (thud + scuff), at)
    return audio


def make_laser(draw: Draw, length: int, pace: float) -> Audio:
    audio, top = np.zeros(length), draw.uniform(2500, 4500)
    for at in draw_times(draw, length / SAMPLE_RATE, 0.7 / pace, 0.15):
        size = int(draw.uniform(0.18, 0.32) * SAMPLE_RATE)
        fall = sum_phase(150 + top * decay_curve(size, 0.045))
        add_sound(audio, (np.sin(fall) + 0.3 * np.sign(np.sin(fall))) * decay_curve(size, 0.09), at)
    return audio


def make_door(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.003 * draw.standard_normal(length)
    for at in draw_times(draw, length / SAMPLE_RATE, 2.6 / pace, 0.1):
        size = int(0.9 * SAMPLE_RATE)
        creak = sum_phase(180 + 160 * draw_curve(draw, size, 6))
        teeth = np.sign(np.sin(creak)) * draw_curve(draw, size, 12) ** 2
        add_sound(audio, 0.4 * filter_band(teeth, 300, 2500), at)
        slam = filter_band(draw.standard_normal(5000), 60, 600) * decay_curve(5000, 0.03)
        add_sound(audio, 3.5 * slam, at + 0.95)
    return audio


def make_applause(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.02 * filter_band(draw.standard_normal(length), 500, 4000)
    swell = 0.5 + 0.5 * draw_curve(draw, length, 0.5)
    claps = [
        filter_band(draw.standard_normal(320), low, 2.2 * low) * decay_curve(320, 0.004)
        for low in draw.uniform(700, 1800, 24)
    ]
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 90 * pace)):
        add_sound(audio, draw.uniform(0.3, 1) * claps[int(draw.integers(24))], float(at))
    return audio * swell


KINDS: dict[str, Callable[[Draw, int, float], Audio]] = {
    "rain": make_rain, "wind": make_wind, "waves": make_waves, "thunder": make_thunder,
    "birds": make_birds, "bell": make_bell, "siren": make_siren, "engine": make_engine,
    "footsteps": make_footsteps, "laser": make_laser, "door": make_door, "applause": make_applause,
}  # fmt: skip


def draw_effect(number: int) -> Effect:
    """Draw the properties of the effect with this number."""
    draw = np.random.default_rng([17, number])
    return Effect(
        kind=str(draw.choice(list(KINDS))),
        pace=str(draw.choice(list(PACES))),
        far=bool(draw.random() < 0.3),
        seed=number,
    )


def is_held_out(effect: Effect) -> bool:
    """Return whether an effect is held out from training; one in ten is."""
    return effect.seed % 10 == 9


def render(effect: Effect, seconds: float) -> NDArray[np.float32]:
    """Return mono samples at 16 kHz, full scale ±1, peak at 0.3 to 0.8."""
    draw = np.random.default_rng([19, effect.seed])
    audio = KINDS[effect.kind](draw, int(seconds * SAMPLE_RATE), PACES[effect.pace])
    if effect.far:
        audio = 0.4 * filter_band(audio, 20, 1200)
    peak = draw.uniform(0.3, 0.8) * (0.6 if effect.far else 1.0)
    return np.asarray(audio * (peak / max(np.abs(audio).max(), 1e-6)), np.float32)
