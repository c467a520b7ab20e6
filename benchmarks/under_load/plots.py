"""Plots a held load: answers and waiting times per minute, and memory per process."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt


def draw_load(path: Path, title: str, held: dict[str, Any]) -> None:
    """Write the result of `benchmarks.load hold` as a PNG file."""
    figure, (rates, waits, memory) = plt.subplots(
        3, sharex=True, figsize=(12, 7), layout="constrained"
    )
    minutes = [row["minute"] + 0.5 for row in held["by_minute"]]
    for kind in sorted(held["kinds"]):
        counts = [row["kinds"].get(kind, 0) / 60 for row in held["by_minute"]]
        rates.plot(minutes, counts, label=kind)
    rates.set_ylabel("answers a second")
    for name, what in (("first_s", "first byte"), ("whole_s", "whole")):
        for percent in (50, 95):
            seconds = [row[f"{name}_p{percent}"] for row in held["by_minute"]]
            waits.plot(minutes, seconds, label=f"{what}, p{percent}")
    waits.set_ylabel("seconds")
    at = [row["s"] / 60 for row in held["memory_mb"]]
    for name in held["memory_slopes_mb_per_hour"]:
        memory.plot(at, [row.get(name, float("nan")) for row in held["memory_mb"]], label=name)
    memory.set_ylabel("memory, MB")
    memory.set_xlabel("minutes")
    for axes in (rates, waits, memory):
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
