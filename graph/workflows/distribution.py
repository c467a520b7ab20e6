"""Makes the distribution of a song: its mix, once more through a codec."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np

from deployments.settings import EnCodecSettings
from engine.params import Codes
from graph.pipeline import Pipeline
from graph.workflows.levels import PEAK_DB, Samples, db_to_factor, measure_true_peak
from graph.workflows.mix import Mix
from graph.workflows.mixing import sum_part


@dataclass(frozen=True)
class Distribution:
    """A second mix, encoded and decoded by a codec."""

    codec: EnCodecSettings
    codebooks: int


async def make_distribution(pipeline: Pipeline, wanted: Distribution, mix: Mix) -> Samples:
    """Return a mix after a codec, with peaks below `PEAK_DB`.

    The mix is summed, encoded and decoded piece by piece; only the result is held.
    """
    codes = await pipeline.encode_pieces(wanted.codec, partial(sum_part, mix.placed), mix.total)
    kept = Codes.pack(codes.array()[: wanted.codebooks])
    samples, at = np.empty((mix.channels, mix.total), np.float32), 0
    async with aclosing(pipeline.decode_pieces(wanted.codec, kept)) as pieces:
        async for piece in pieces:
            part = piece.array()[:, : mix.total - at]
            samples[:, at : at + part.shape[1]] = part
            at += part.shape[1]
    assert at == mix.total, "the last frame of a codec covers the last sample"
    peak = await asyncio.to_thread(measure_true_peak, samples)
    gain = np.float32(min(1.0, db_to_factor(PEAK_DB) / max(peak, 1e-9)))
    return np.multiply(samples, gain, out=samples)
