"""Plots the arrivals, replicas and waiting times of a replayed trace, by policy."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.autoscale.fleet import Outcome
from benchmarks.autoscale.traces import Trace

mpl.use("agg")
from matplotlib import pyplot as plt

LEFT_OUT = "Serve, 2 (its default)"
"""A policy that is not plotted, because it has ten times as many replicas."""


def draw_trace(folder: Path, title: str, trace: Trace, outcomes: Mapping[str, Outcome]) -> None:
    """Write the plot of one trace as a PNG file into `folder`."""
    figure, (arrivals, replicas, waits) = plt.subplots(
        3, sharex=True, figsize=(12, 7), layout="constrained"
    )
    edges = np.arange(0, trace.ends + 60, 60)
    arrivals.stairs(np.histogram(trace.at, edges)[0], edges / 60)
    arrivals.set_ylabel("requests a minute")
    shown = [name for name in outcomes if name != LEFT_OUT]
    for number, name in enumerate(shown):
        outcome, style = outcomes[name], {"color": f"C{number}", "lw": 2 if name == "ours" else 1}
        at, _, total, _ = np.array(outcome.history).T
        replicas.step(at / 60, total, label=f"{name}: {outcome.gpu_hours:.0f} GPU-hours", **style)
        if name != "oracle":
            p95 = np.percentile(outcome.waits, 95)
            worst = _longest_waits(trace, outcome, edges)
            waits.step(edges[:-1] / 60, worst, label=f"{name}: p95 {p95:.1f} s", **style)
    replicas.set_ylabel("replicas")
    waits.set_ylabel("longest time to start, s")
    waits.set_xlabel("minutes")
    for axes in (replicas, waits):
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title)
    folder.mkdir(parents=True, exist_ok=True)
    name = title.replace(", ", "-").replace(" ", "-")
    figure.savefig(folder / f"{name}.png", dpi=80)
    plt.close(figure)


def _longest_waits(trace: Trace, outcome: Outcome, edges: np.ndarray) -> np.ndarray:
    """Return the longest wait of the requests that arrived in each minute."""
    minutes = np.digitize(trace.at[: len(outcome.waits)], edges) - 1
    worst = np.zeros(len(edges) - 1)
    np.maximum.at(worst, minutes, outcome.waits)
    return worst
