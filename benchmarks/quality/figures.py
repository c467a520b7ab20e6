"""Computes means with confidence intervals, and prints rows of a table."""

from collections.abc import Sequence

import numpy as np

Row = dict[str, object]


def mean_and_interval(values: Sequence[float]) -> Row:
    """Return the mean of the values and its 95 % interval, by bootstrap over clips."""
    draw = np.random.default_rng(0)
    means = draw.choice(np.asarray(values, float), (2000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "clips": len(values),
        "mean": round(float(np.mean(values)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def show(row: Row) -> Row:
    """Print a row as soon as it is known, and return it."""
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row
