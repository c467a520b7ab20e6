"""Tests that the distribution of a song is its whole mix after the codec, made in pieces."""

import numpy as np
import pytest

from deployments.settings import EnCodecSettings
from engine.codec import Codec
from engine.params import Codes, Waveform
from graph import pipeline as pipelines
from graph.pipeline import Pipeline
from graph.registry import Registry
from graph.workflows.distribution import Distribution, make_distribution
from graph.workflows.levels import measure_true_peak
from graph.workflows.mix import Mix, Stem
from graph.workflows.mixing import Placed
from tests.api.conftest import Real

RATE = 16000


async def test_a_distribution_is_the_whole_mix_after_the_codec(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
):
    """Its pieces begin where those of a whole clip do, so that not a sample differs."""
    monkeypatch.setattr(pipelines, "PIECE_S", 1.0)
    settings = EnCodecSettings(name="codec", kind="encodec", checkpoint="x")
    pipeline = Pipeline(Registry([settings], {"codec": Real(codec)}))
    draw, total = np.random.default_rng(0), round(5.3 * RATE) + 7
    samples = draw.normal(0, 0.2, (1, total)).astype(np.float32)
    ends = [Placed(samples[:, : 3 * RATE], 0), Placed(samples[:, 2 * RATE :], 2 * RATE)]
    stems = [Stem(f"{number}", placed, None) for number, placed in enumerate(ends)]
    mix = Mix(RATE, total, stems, [])
    made = await make_distribution(pipeline, Distribution(settings, 2), mix)

    whole = np.concatenate(list(mix.sum_blocks()), axis=1)
    codes = await pipeline.encode_audio(settings, Waveform.pack(whole, RATE))
    kept = Codes.pack(codes.array()[:2])
    decoded = (await pipeline.decode_codes(settings, kept)).array()[:, :total]
    gain = min(1.0, 10 ** (-1 / 20) / measure_true_peak(decoded))
    np.testing.assert_array_equal(made, decoded * np.float32(gain))
