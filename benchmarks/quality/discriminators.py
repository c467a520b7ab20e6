"""Measures how well the discriminators separate held-out clips from generated ones.

The combined score is the calibrated probability. The area under the curve is the share of pairs of
a real and a generated clip in which the real one scores higher. The calibration error is the mean
distance, over ten bins of probability, between the mean probability and the share of real clips.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import mannwhitneyu

from benchmarks.quality.figures import Row, show
from benchmarks.quality.generation import generate_clips
from bundles.tiny.data.store import Clips
from bundles.tiny.train.discriminators import compute_mean_logits
from engine.codec import Codec
from engine.discriminators import NAMES, Discriminators

BINS = 10


def area_under_curve(real: NDArray[np.float64], made: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve."""
    return float(mannwhitneyu(real, made).statistic / (len(real) * len(made)))


def calibration_error(said: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Return the expected calibration error over equal bins."""
    which = np.minimum((said * BINS).astype(int), BINS - 1)
    parts = [which == one for one in range(BINS) if (which == one).any()]
    return float(sum(p.mean() * abs(said[p].mean() - true[p].mean()) for p in parts))


def measure(bundle: Path, sets: dict[str, Clips]) -> list[Row]:
    """Return a row for each discriminator and for all together, with 95 % intervals."""
    models = Discriminators.load(str(bundle / "discriminators"), device="cpu")
    codec = Codec.load(str(bundle / "codec"), device="cpu")
    real, made = [], []
    for kind, rendered in sets.items():
        audio = generate_clips(kind, bundle, codec, rendered, 3.0)
        clips = Clips(rendered.numbers, np.round(audio.clip(-1, 1) * 32767).astype(np.int16))
        real.append(compute_mean_logits(models, rendered))
        made.append(compute_mean_logits(models, clips))
    features = np.concatenate(real + made)
    true = np.repeat([1.0, 0.0], [sum(map(len, real)), sum(map(len, made))])
    weights = models.info.weights
    assert weights is not None
    scores = dict(zip(NAMES, features.T, strict=True))
    scores["combined"] = expit(
        features @ np.array([weights[name] for name in NAMES]) + models.info.bias
    )
    draw, rows = np.random.default_rng(0), []
    for name, said in scores.items():
        picks = [draw.integers(len(true), size=len(true)) for _ in range(500)]
        areas = [area_under_curve(said[p][true[p] == 1], said[p][true[p] == 0]) for p in picks]
        low, high = np.percentile(areas, [2.5, 97.5]).round(3)
        row = {"what": "AUC", "by": name, "clips": len(true)}
        mean = round(area_under_curve(said[true == 1], said[true == 0]), 3)
        rows.append(show(row | {"mean": mean, "low": float(low), "high": float(high)}))
    error = round(calibration_error(scores["combined"], true), 3)
    rows.append(show({"what": "calibration error", "clips": len(true), "mean": error}))
    return rows
