"""Levels against AudioCraft's `normalize_audio`; fades and trims."""

import numpy as np
import pytest
import torch
from audiocraft.data.audio_utils import normalize_audio

from api.audio.file import fade_edges, finish_clip, normalize_level
from api.audio.output import Output
from graph.workflows.levels import PEAK_DB, db_to_factor, measure_true_peak

RATE = 16000


def clip(scale: float, channels: int = 1, seconds: float = 2.0) -> np.ndarray:
    """Pink-like noise, so that loudness differs from the root mean square."""
    draw = np.random.default_rng(channels)
    noise = np.cumsum(draw.normal(size=(channels, int(seconds * RATE))), axis=1)
    noise -= noise.mean(axis=1, keepdims=True)
    return (scale * noise / np.abs(noise).max()).astype(np.float32)


@pytest.mark.parametrize("how", ["clip", "peak", "rms"])
@pytest.mark.parametrize("scale", [0.01, 0.5, 1.7])
@pytest.mark.parametrize("channels", [1, 2])
def test_levels_are_audiocrafts(how: str, scale: float, channels: int):
    samples = clip(scale, channels)
    theirs = normalize_audio(torch.tensor(samples), strategy=how, sample_rate=RATE).numpy()
    np.testing.assert_allclose(normalize_level(samples, RATE, how), theirs, atol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 0.5])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_audiocrafts(scale: float, channels: int):
    draw = np.random.default_rng(0)
    samples = (scale * 0.3 * draw.uniform(-1, 1, (channels, 3 * RATE))).astype(np.float32)
    theirs = normalize_audio(torch.tensor(samples), strategy="loudness", sample_rate=RATE).numpy()
    ours = normalize_level(samples, RATE, "loudness")
    assert 20 * np.log10(np.abs(ours).max() / np.abs(theirs).max()) == pytest.approx(0, abs=0.1)
    assert np.corrcoef(ours[0], theirs[0])[0, 1] > 0.9999


def test_loudness_never_takes_the_true_peak_above_its_bound():
    samples = clip(0.2)
    samples[:, RATE] = 1.0  # one click: any gain would clip it
    loud = normalize_level(samples, RATE, "loudness")
    assert measure_true_peak(loud) == pytest.approx(db_to_factor(PEAK_DB), rel=1e-3)
    between = 0.9 * np.sin(np.pi / 2 * np.arange(64) + np.pi / 4)[None]
    assert measure_true_peak(between) > 1.2 * np.abs(between).max()


@pytest.mark.parametrize("how", ["none", "clip", "peak", "rms", "loudness"])
def test_silence_stays_silent(how: str):
    silence = np.zeros((1, RATE), np.float32)
    np.testing.assert_array_equal(normalize_level(silence, RATE, how), silence)


def test_what_is_too_short_for_loudness_stays():
    samples = clip(0.5, seconds=0.3)
    np.testing.assert_array_equal(normalize_level(samples, RATE, "loudness"), samples)


def test_fades_in_pieces_are_those_of_the_whole():
    samples = np.ones((2, 1000), np.float32)
    output = Output(fade_in=0.01, fade_out=0.02)
    whole = fade_edges(samples, 0, 1000, RATE, output)
    parts = [
        fade_edges(samples[:, a:b], a, 1000, RATE, output)
        for a, b in [(0, 3), (3, 700), (700, 1000)]
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert whole[:, 0].tolist() == whole[:, -1].tolist() == [0, 0]
    assert whole[0, 80] == pytest.approx(0.5)
    assert whole[0, 400] == 1
    assert whole[0, -161] == pytest.approx(0.5)


def test_trimming_leaves_out_silent_ends():
    samples = clip(0.5)
    padded = np.pad(samples, ((0, 0), (500, 900)))
    trimmed = finish_clip(padded, RATE, Output(trim_silence=True))
    heard = np.flatnonzero(np.abs(samples[0]) > db_to_factor(-50))
    np.testing.assert_array_equal(trimmed, samples[:, heard[0] : heard[-1] + 1])
    silence = np.zeros((1, 100), np.float32)
    assert finish_clip(silence, RATE, Output(trim_silence=True)).shape == (1, 100)
