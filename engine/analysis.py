"""Combines the discriminators' results for a file's windows into one analysis, without torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.params import DiscriminatorsInfo, WindowScores


@dataclass(frozen=True, slots=True)
class Analysis:
    """The mean results over all windows of a file, weighted by their lengths."""

    scores: dict[str, float]
    logits: dict[str, list[float]]
    feature_maps: list[list[float]]
    probability: float | None
    """Probability, 0 to 1, that the audio was not made by the codec; None: not calibrated."""

    def is_real(self, threshold: float) -> bool:
        """Return whether the mean of the three scores is above the threshold."""
        return sum(self.scores.values()) / len(self.scores) > threshold


def combine(windows: Sequence[WindowScores], info: DiscriminatorsInfo) -> Analysis:
    """Average the results of at least one window, and compute the probability."""
    total = sum(window.samples for window in windows)
    shares = [window.samples / total for window in windows]

    def average(parts: Sequence[float]) -> float:
        return math.fsum(share * part for share, part in zip(shares, parts, strict=True))

    def average_lists(parts: Sequence[Sequence[float]]) -> list[float]:
        return [average(column) for column in zip(*parts, strict=True)]

    first = windows[0]
    logits = {name: average_lists([one.logits[name] for one in windows]) for name in first.logits}
    probability = None
    if info.weights is not None:
        parts = (info.weights[name] * math.fsum(of) / len(of) for name, of in logits.items())
        probability = 1 / (1 + math.exp(-max(-700.0, math.fsum(parts) + info.bias)))
    return Analysis(
        scores={name: average([one.scores[name] for one in windows]) for name in first.scores},
        logits=logits,
        feature_maps=[
            average_lists([window.feature_maps[layer] for window in windows])
            for layer in range(len(first.feature_maps))
        ],
        probability=probability,
    )
