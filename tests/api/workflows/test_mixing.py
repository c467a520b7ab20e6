"""How clips are put together."""

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from graph.workflows import levels
from graph.workflows.levels import (
    compute_limiter_gain,
    db_to_factor,
    limit_peaks,
    measure_loudness,
    measure_peaks,
    measure_true_peak,
)
from graph.workflows.mixing import (
    ATTACK_S,
    DUCKED_DB,
    RELEASE_S,
    Placed,
    apply_gain,
    close_loop,
    compute_ducking,
    fade_edges,
    fade_ends,
    level_stems,
    match_channels,
    match_loudness,
    repeat_loop,
    resample,
    resample_loop,
    sum_part,
)

RATE = 16000


def level_mix(
    mix: np.ndarray, stems: list[Placed], rate: int, target: float
) -> tuple[np.ndarray, list[Placed]]:
    """Level copies of stems; return their sum and them."""
    copies = [Placed(stem.samples.copy(), stem.start) for stem in stems]
    np.testing.assert_array_equal(sum_part(copies, 0, mix.shape[1]), mix)
    turned = level_stems(copies, mix.shape[1], rate, target)
    return sum_part(turned, 0, mix.shape[1]), turned


def noise(seconds: float, seed: int = 0, channels: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (0.1 * draw.normal(size=(channels, round(seconds * RATE)))).astype(np.float32)


def tone(seconds: float, hertz: float = 220.0, rate: int = RATE) -> np.ndarray:
    at = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)[None]


def power(samples: np.ndarray) -> float:
    return 10 * np.log10(float((samples**2).mean()))


def test_a_crossfade_keeps_the_power():
    first, second, over = noise(2, 1), noise(2, 2), RATE
    stems = [
        Placed(fade_ends(first, 0, over), 0),
        Placed(fade_ends(second, over, 0), 2 * RATE - over),
    ]
    mix = sum_part(stems, 0, 3 * RATE)
    for start in range(0, 3 * RATE - 4000, 1000):
        assert power(mix[:, start : start + 4000]) == pytest.approx(power(first), abs=0.6)
    into, out = fade_ends(np.ones((1, 100)), 100, 0), fade_ends(np.ones((1, 100)), 0, 100)
    np.testing.assert_allclose(into**2 + out**2, 1, atol=1e-6)


def test_fades_touch_nothing_else():
    samples = noise(1)
    made = fade_ends(samples, 100, 200)
    np.testing.assert_array_equal(made[:, 100:-200], samples[:, 100:-200])
    assert made[0, 0] == 0
    np.testing.assert_array_equal(fade_ends(samples, 0, 0), samples)
    assert fade_edges(samples[:, :3], RATE).shape == (1, 3)


def test_what_is_not_placed_is_not_in_the_mix():
    stems = [Placed(noise(1, 1), 0), Placed(noise(1, 2))]
    np.testing.assert_array_equal(sum_part(stems, 0, RATE), stems[0].samples)


def steps_of(loop: np.ndarray) -> tuple[float, np.ndarray]:
    """The step from its last sample to its first, and all others."""
    return float(np.abs(loop[0, 0] - loop[0, -1])), np.abs(np.diff(loop[0]))


@pytest.mark.parametrize("hertz", [220.0, 333.3])
def test_a_loop_goes_round_without_a_step(hertz: float):
    clip, length = tone(2.5, hertz) + 0.1 * noise(2.5), 2 * RATE + 37
    loop = close_loop(clip, length)
    assert loop.shape == (1, length)
    seam, steps = steps_of(loop)
    assert seam <= np.concatenate([steps[:20], steps[-20:]]).max()
    assert loop[0, 0] == pytest.approx(clip[0, length])
    np.testing.assert_array_equal(loop[:, RATE:], clip[:, RATE:length])
    cut, _ = steps_of(clip[:, :length])
    assert hertz == 220.0 or cut > 2 * seam, "a loop that is only cut off has a step"


def test_a_loop_may_be_made_of_nothing_more():
    clip = noise(1)
    np.testing.assert_array_equal(close_loop(clip, RATE), clip)


def test_a_loop_of_another_rate_still_goes_round():
    loop = tone(1, 330)
    for after in (44100, 48000, 8000):
        made = resample_loop(loop, RATE, after)
        assert made.shape == (1, after)
        np.testing.assert_allclose(made, tone(1, 330, after), atol=2e-3)
        whole = resample(loop, RATE, after)
        assert np.abs(whole - made).max() > 2e-3, "not so where it is taken for a clip"
    assert resample_loop(loop[:, :50], RATE, 8000).shape == (1, 25)


def test_repeated_goes_round_and_round():
    loop = noise(0.5)
    made = repeat_loop(loop, RATE + 100)
    assert made.shape == (1, RATE + 100)
    np.testing.assert_array_equal(made[:, RATE:], loop[:, :100])


@pytest.mark.parametrize("target", [-30.0, -23.0, -16.0])
def test_a_mix_gets_the_loudness_and_its_stems_still_add_up(target: float):
    stems = [Placed(noise(2, 1), 0), Placed(noise(1, 2), RATE), Placed(noise(1, 3))]
    mix, turned = level_mix(sum_part(stems, 0, 2 * RATE), stems, RATE, target)
    measured = pyloudnorm.Meter(RATE).integrated_loudness(mix.T.astype(float))
    assert measured == pytest.approx(target, abs=0.1)
    np.testing.assert_allclose(sum_part(turned, 0, 2 * RATE), mix, atol=1e-6)


def test_peaks_are_limited_and_the_loudness_is_had():
    beats = noise(2, 1) * 0.2
    beats[0, :: RATE // 4] = 1.0
    parts = [Placed(beats[:, :RATE], 0), Placed(beats[:, RATE:], RATE)]
    mix, turned = level_mix(beats, parts, RATE, -26)
    assert measure_loudness(mix, RATE) == pytest.approx(-26, abs=0.1)
    assert 0.8 < measure_true_peak(mix) <= db_to_factor(-1)
    np.testing.assert_allclose(sum_part(turned, 0, 2 * RATE), mix, atol=1e-6)
    gain = 20 * np.log10(np.abs(mix / beats))[0]
    assert gain.max() - gain.min() > 3
    assert np.abs(np.diff(gain)).max() < 0.3, "no step"


def test_a_limited_loop_still_goes_round():
    loop = noise(1, 1)
    loop[0, 3] = 2.0
    factors = compute_limiter_gain(loop, RATE)
    assert abs(factors[0] - factors[-1]) < 0.02
    assert factors[-20] < 1
    assert factors[RATE // 2] == 1


@given(st.integers(0, 10**6), st.floats(0.1, 30))
@settings(deadline=None, max_examples=40)
def test_no_true_peak_is_above(seed: int, level: float):
    draw = np.random.default_rng(seed)
    samples = level * draw.laplace(size=(2, 4000)).astype(np.float32) ** 3
    limited = apply_gain(samples, compute_limiter_gain(samples, RATE))
    assert measure_true_peak(np.tile(limited, 2)) <= db_to_factor(-1) * 1.001


def test_peaks_bound_the_gain():
    clicks = noise(2, 1)
    clicks[0, RATE] = 5.0
    mix, _ = level_mix(clicks, [Placed(clicks, 0)], RATE, -14)
    assert measure_true_peak(clicks) / measure_true_peak(mix) == pytest.approx(
        np.abs(clicks[0, RATE] / mix[0, RATE]), rel=0.01
    )
    assert measure_true_peak(mix) <= db_to_factor(-1)
    assert measure_loudness(mix, RATE) < -15
    loud = Placed(noise(2, 2) * 100, 0)
    against = Placed(-loud.samples + noise(2, 1), 0)
    mix, stems = level_mix(sum_part([loud, against], 0, 2 * RATE), [loud, against], RATE, -14)
    assert max(np.abs(stem.samples).max() for stem in stems) == pytest.approx(1)
    assert measure_loudness(mix, RATE) < -40


def test_what_is_not_in_the_mix_bounds_but_itself():
    stems = [Placed(noise(2, 1), 0), Placed(noise(1, 2) * 1000)]
    mix, turned = level_mix(sum_part(stems, 0, 2 * RATE), stems, RATE, -20)
    assert measure_loudness(mix, RATE) == pytest.approx(-20, abs=0.1)
    assert np.abs(turned[1].samples).max() == pytest.approx(1)


@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_measure_what_the_whole_does(channels: int):
    samples = noise(10, channels=channels) * np.linspace(0.1, 2, 10 * RATE, dtype=np.float32)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(samples.T.astype(float))
    assert measure_loudness(samples, RATE) == pytest.approx(expected, abs=0.01)
    whole = np.abs(resample_poly(samples, 4, 1, axis=1)).max(axis=0).reshape(-1, 4).max(axis=1)
    for size in (7, 1000, 70000, 10**6):
        blocks = (samples[:, at : at + size] for at in range(0, samples.shape[1], size))
        made = np.concatenate(list(measure_peaks(blocks)))
        np.testing.assert_allclose(made, whole, rtol=1e-5)


def test_a_limiter_has_no_seam_between_blocks(monkeypatch: pytest.MonkeyPatch):
    peaks = np.abs(noise(3)[0]) * 12
    whole = limit_peaks(peaks, RATE, 1.5)
    monkeypatch.setattr(levels, "BLOCK", 1111)
    np.testing.assert_allclose(limit_peaks(peaks, RATE, 1.5), whole, rtol=1e-6)


def test_silence_has_no_loudness_and_stays():
    silence = np.zeros((2, RATE), np.float32)
    assert measure_loudness(silence, RATE) is None
    mix, _ = level_mix(silence, [Placed(silence, 0)], RATE, -14)
    np.testing.assert_array_equal(mix, silence)
    np.testing.assert_array_equal(match_loudness(silence, RATE, -14), silence)


def test_matched_clips_are_as_loud():
    quiet, loud = noise(1, 1) / 5, noise(1, 2)
    for clip in (quiet, loud):
        assert measure_loudness(match_loudness(clip, RATE, -20), RATE) == pytest.approx(
            -20, abs=0.1
        )


def test_a_bed_is_turned_down_while_somebody_speaks():
    voice = np.concatenate([np.zeros((1, RATE)), noise(3), np.zeros((1, 4 * RATE))], axis=1)
    gain = 20 * np.log10(compute_ducking(voice, RATE))
    assert gain[: RATE - 200] == pytest.approx(0)
    assert gain[2 * RATE : 4 * RATE - 200] == pytest.approx(DUCKED_DB, abs=0.1)
    assert gain[-RATE:] == pytest.approx(0, abs=0.1)
    after_attack = gain[RATE + round(ATTACK_S * RATE)]
    after_release = gain[4 * RATE + round(RELEASE_S * RATE)]
    assert after_attack == pytest.approx(DUCKED_DB * (1 - np.exp(-1)), abs=1.5)
    assert after_release == pytest.approx(DUCKED_DB * np.exp(-1), abs=0.5)
    assert np.abs(np.diff(gain)).max() < 0.05, "no zipper"


def test_hiss_in_a_pause_is_no_voice():
    voice = noise(4)
    voice[:, 2 * RATE :] *= db_to_factor(-40)
    gain = 20 * np.log10(compute_ducking(voice, RATE))
    assert gain[-RATE // 4] > -1
    assert compute_ducking(np.zeros((1, 50), np.float32), RATE) == pytest.approx(1)


def test_rates_and_channels():
    assert resample(tone(1), RATE, 32000) == pytest.approx(tone(1, rate=32000), abs=0.02)
    assert resample(noise(1), RATE, RATE).shape == (1, RATE)
    pair = noise(1, channels=2)
    np.testing.assert_allclose(match_channels(pair, 1)[0], pair.mean(axis=0))
    np.testing.assert_array_equal(match_channels(pair[:1], 2), np.repeat(pair[:1], 2, axis=0))
    assert match_channels(pair, 2) is pair
    assert apply_gain(pair, 0.5)[0, 0] == pair[0, 0] / 2
