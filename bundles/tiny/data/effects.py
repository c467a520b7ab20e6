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
    """What a sound effect is, in the words that captions use."""

    kind: str
    pace: str
    """How fast or strong it is: "light", "steady" or "heavy"."""
    far: bool
    """Muffled and soft, as from a distance."""
    seed: int


PACES = {"light": 0.6, "steady": 1.0, "heavy": 1.6}


def band(noise: Audio, low: float, high: float) -> Audio:
    """Keep what lies between two frequencies, in hertz."""
    edges = [max(low, 20.0), min(high, 7800.0)]
    return np.asarray(sosfilt(butter(2, edges, "band", fs=SAMPLE_RATE, output="sos"), noise))


def slow(draw: Draw, length: int, hertz: float) -> Audio:
    """Return a smooth random curve between 0 and 1 that changes about so often."""
    points = max(int(length / SAMPLE_RATE * hertz) + 3, 4)
    at = np.linspace(0, points - 1, length)
    return np.asarray(np.interp(at, np.arange(points), draw.uniform(0, 1, points)))


def decays(length: int, half_life: float) -> Audio:
    """Return an exponential decay; half-life in seconds."""
    return np.asarray(0.5 ** (np.arange(length) / SAMPLE_RATE / half_life))


def place(target: Audio, sound: Audio, at: float) -> None:
    """Add a sound at a time in seconds."""
    start = max(int(at * SAMPLE_RATE), 0)
    end = min(start + len(sound), len(target))
    if start < end:
        target[start:end] += sound[: end - start]


def beats(draw: Draw, seconds: float, interval: float, jitter: float) -> list[float]:
    """Return times about an interval apart, each off by up to `jitter` of it."""
    times = np.arange(draw.uniform(0, interval), seconds, interval)
    return [float(t + interval * jitter * draw.uniform(-1, 1)) for t in times]


def phase(frequency: Audio) -> Audio:
    """Return the running phase of a frequency curve in hertz."""
    return np.asarray(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)


def rain(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.25 * band(draw.standard_normal(length), 1500, 7500)
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 60 * pace)):
        drop = draw.uniform(0.2, 1) * draw.standard_normal(200) * decays(200, 0.0012)
        place(audio, drop, float(at))
    return audio


def wind(draw: Draw, length: int, pace: float) -> Audio:
    noise = draw.standard_normal(length)
    gusts = 0.15 + slow(draw, length, 0.5 * pace) ** 2
    howl = np.sin(phase(250 + 350 * slow(draw, length, 0.7))) * slow(draw, length, 1.0) ** 3
    return gusts * (band(noise, 100, 500) + 0.4 * band(noise, 500, 1200) + 0.12 * howl)


def waves(draw: Draw, length: int, pace: float) -> Audio:
    noise, period = draw.standard_normal(length), 4.0 / pace
    time = np.arange(length) / SAMPLE_RATE + draw.uniform(0, period)
    swell = ((time % period) / period) ** 2 * (1 - ((time % period) / period) ** 12)
    return swell * band(noise, 300, 4500) + 0.25 * band(noise, 60, 400)


def thunder(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.02 * band(draw.standard_normal(length), 50, 300)
    for at in beats(draw, length / SAMPLE_RATE, 3.0 / pace, 0.2):
        roll = band(draw.standard_normal(3 * SAMPLE_RATE), 30, 220) * decays(3 * SAMPLE_RATE, 0.6)
        crack = 0.4 * band(draw.standard_normal(6000), 300, 3000) * decays(6000, 0.03)
        place(audio, 3 * roll * (0.4 + slow(draw, len(roll), 9)), at)
        place(audio, crack, at)
    return audio


def birds(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.004 * draw.standard_normal(length)
    voices = draw.uniform(2200, 5200, 3)
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 2.5 * pace) + 1):
        pitch, size = float(draw.choice(voices)), int(draw.uniform(0.05, 0.16) * SAMPLE_RATE)
        sweep = np.linspace(0, 1, size)
        shape = np.sin(np.pi * sweep)
        for count in range(int(draw.integers(2, 6))):
            tone = np.sin(
                phase(pitch * (1 + 0.25 * np.sin(2 * np.pi * sweep * draw.uniform(1, 3))))
            )
            place(audio, 0.5 * shape * tone, float(at) + count * size / SAMPLE_RATE * 1.4)
    return audio


def bell(draw: Draw, length: int, pace: float) -> Audio:
    audio, root = np.zeros(length), draw.uniform(280, 620)
    size = 4 * SAMPLE_RATE
    time = np.arange(size) / SAMPLE_RATE
    partials = ((0.5, 1.2), (1, 1.0), (1.2, 0.6), (1.5, 0.5), (2, 0.45), (2.7, 0.25), (4.1, 0.12))
    stroke = sum(
        loud * np.sin(2 * np.pi * root * ratio * time) * decays(size, 0.9 / ratio)
        for ratio, loud in partials
    )
    for at in beats(draw, length / SAMPLE_RATE, 1.8 / pace, 0.02):
        place(audio, np.asarray(stroke), at)
    return audio


def siren(draw: Draw, length: int, pace: float) -> Audio:
    time = np.arange(length) / SAMPLE_RATE
    turn = np.sin(2 * np.pi * 0.35 * pace * time + draw.uniform(0, 6))
    curve = np.sign(turn) if draw.random() < 0.4 else turn
    sung = phase(draw.uniform(700, 900) * 2 ** (0.45 * curve))
    return np.asarray(np.sin(sung) + 0.4 * np.sin(2 * sung) + 0.2 * np.sin(3 * sung))


def engine(draw: Draw, length: int, pace: float) -> Audio:
    turns = draw.uniform(22, 34) * pace * (1 + 0.25 * slow(draw, length, 0.4))
    angle = phase(turns)
    audio = sum(np.sin(k * angle + draw.uniform(0, 6)) / k for k in range(1, 24))
    puffs = (0.5 + 0.5 * np.sin(angle)) ** 4 * band(draw.standard_normal(length), 80, 1500)
    return np.asarray(audio + 1.2 * puffs)


def footsteps(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.003 * draw.standard_normal(length)
    heel = draw.uniform(80, 160)
    for number, at in enumerate(beats(draw, length / SAMPLE_RATE, 0.62 / pace, 0.04)):
        size = 2400
        thud = np.sin(2 * np.pi * heel * np.arange(size) / SAMPLE_RATE) * decays(size, 0.018)
        scuff = 0.5 * band(draw.standard_normal(size), 800, 4000) * decays(size, 0.02)
        place(audio, (1.0 if number % 2 else 0.85) * (thud + scuff), at)
    return audio


def laser(draw: Draw, length: int, pace: float) -> Audio:
    audio, top = np.zeros(length), draw.uniform(2500, 4500)
    for at in beats(draw, length / SAMPLE_RATE, 0.7 / pace, 0.15):
        size = int(draw.uniform(0.18, 0.32) * SAMPLE_RATE)
        fall = phase(150 + top * decays(size, 0.045))
        place(audio, (np.sin(fall) + 0.3 * np.sign(np.sin(fall))) * decays(size, 0.09), at)
    return audio


def door(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.003 * draw.standard_normal(length)
    for at in beats(draw, length / SAMPLE_RATE, 2.6 / pace, 0.1):
        size = int(0.9 * SAMPLE_RATE)
        creak = phase(180 + 160 * slow(draw, size, 6))
        teeth = np.sign(np.sin(creak)) * slow(draw, size, 12) ** 2
        place(audio, 0.4 * band(teeth, 300, 2500), at)
        slam = band(draw.standard_normal(5000), 60, 600) * decays(5000, 0.03)
        place(audio, 3.5 * slam, at + 0.95)
    return audio


def applause(draw: Draw, length: int, pace: float) -> Audio:
    audio = 0.02 * band(draw.standard_normal(length), 500, 4000)
    swell = 0.5 + 0.5 * slow(draw, length, 0.5)
    claps = [
        band(draw.standard_normal(320), low, 2.2 * low) * decays(320, 0.004)
        for low in draw.uniform(700, 1800, 24)
    ]
    for at in draw.uniform(0, length / SAMPLE_RATE, int(length / SAMPLE_RATE * 90 * pace)):
        place(audio, draw.uniform(0.3, 1) * claps[int(draw.integers(24))], float(at))
    return audio * swell


KINDS: dict[str, Callable[[Draw, int, float], Audio]] = {
    "rain": rain, "wind": wind, "waves": waves, "thunder": thunder, "birds": birds, "bell": bell,
    "siren": siren, "engine": engine, "footsteps": footsteps, "laser": laser, "door": door,
    "applause": applause,
}  # fmt: skip


def draw_effect(number: int) -> Effect:
    """Return the effect of that number."""
    draw = np.random.default_rng([17, number])
    return Effect(
        kind=str(draw.choice(list(KINDS))),
        pace=str(draw.choice(list(PACES))),
        far=bool(draw.random() < 0.3),
        seed=number,
    )


def is_held_out(effect: Effect) -> bool:
    """Whether it is kept from training: one in ten."""
    return effect.seed % 10 == 9


def render(effect: Effect, seconds: float) -> NDArray[np.float32]:
    """Return mono samples at 16 kHz, full scale ±1, peak at 0.3 to 0.8."""
    draw = np.random.default_rng([19, effect.seed])
    audio = KINDS[effect.kind](draw, int(seconds * SAMPLE_RATE), PACES[effect.pace])
    if effect.far:
        audio = 0.4 * band(audio, 20, 1200)
    peak = draw.uniform(0.3, 0.8) * (0.6 if effect.far else 1.0)
    return np.asarray(audio * (peak / max(np.abs(audio).max(), 1e-6)), np.float32)
