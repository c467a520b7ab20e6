"""What the discriminators said of a file's windows, as one verdict. Knows no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.params import DiscriminatorsInfo, WindowScores


@dataclass(frozen=True, slots=True)
class Analysis:
    """The means over a file's windows, by their lengths."""

    scores: dict[str, float]
    logits: dict[str, list[float]]
    feature_maps: list[list[float]]
    probability: float | None
    """That it is real and not from the codec that the discriminators know; None: not calibrated."""

    def is_real(self, threshold: float) -> bool:
        """Whether the mean of the scores is above the threshold."""
        return sum(self.scores.values()) / len(self.scores) > threshold


def combine(windows: Sequence[WindowScores], info: DiscriminatorsInfo) -> Analysis:
    """Average over at least one window."""
    total = sum(window.samples for window in windows)
    shares = [window.samples / total for window in windows]

    def mean(parts: Sequence[float]) -> float:
        return math.fsum(share * part for share, part in zip(shares, parts, strict=True))

    def means(parts: Sequence[Sequence[float]]) -> list[float]:
        return [mean(column) for column in zip(*parts, strict=True)]

    first = windows[0]
    logits = {name: means([window.logits[name] for window in windows]) for name in first.logits}
    probability = None
    if info.weights is not None:
        parts = (info.weights[name] * math.fsum(of) / len(of) for name, of in logits.items())
        probability = 1 / (1 + math.exp(-max(-700.0, math.fsum(parts) + info.bias)))
    return Analysis(
        scores={name: mean([window.scores[name] for window in windows]) for name in first.scores},
        logits=logits,
        feature_maps=[
            means([window.feature_maps[layer] for window in windows])
            for layer in range(len(first.feature_maps))
        ],
        probability=probability,
    )
