"""Compares our autoscaling policy with Serve's and an oracle in a simulation without Ray.

    python -m benchmarks.autoscale_sim [--seeds 100 101 ...] [--plot FOLDER]

The policy was tuned on seeds below 100.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.autoscale import plots
from benchmarks.autoscale.fleet import Fleet, Machine, Outcome, Policy
from benchmarks.autoscale.policies import OraclePolicy, OurPolicy, ServePolicy
from benchmarks.autoscale.traces import FAMILIES, Trace, draw_traces

MACHINE = Machine()
PEAKS = {"tens of GPUs": (10.0, 60.0), "hundreds of GPUs": (167.0, 167.0)}
"""Range of peak rates in requests per second; 167 per second are 10,000 per minute."""
SEEDS = {"tens of GPUs": 6, "hundreds of GPUs": 1}
FIRST_SEED = 100
GATED = ("steady", "burst", "daily")
WAITS, HOURS, ORACLE = 0.5, 1.15, 1.3
"""Targets: p95 wait and GPU-hours relative to the baseline, GPU-hours relative to the oracle."""
BASELINE = "Serve, 0.8 of the slots"
Make = Callable[[Trace], Policy]
POLICIES: dict[str, Make] = {
    "oracle": lambda trace: OraclePolicy(MACHINE, trace),
    BASELINE: lambda _: ServePolicy(0.8 * MACHINE.slots),
    "Serve, all slots": lambda _: ServePolicy(MACHINE.slots),
    "Serve, 2 (its default)": lambda _: ServePolicy(2),
    "ours": lambda _: OurPolicy(MACHINE),
}


def count_first_replicas(trace: Trace) -> int:
    """Return the number of replicas that the first five minutes load to 80 %."""
    audio_s = trace.seconds[trace.at < 300].sum() / 300
    return max(1, int(0.5 + audio_s * 50 * MACHINE.full_s / MACHINE.slots / 0.8))


def replay_traces(
    traces: Sequence[Trace], policies: Mapping[str, Make]
) -> dict[str, list[Outcome]]:
    """Replay all traces under each policy; return the outcomes by policy."""
    return {
        name: [Fleet(MACHINE, one, make(one)).run(count_first_replicas(one)) for one in traces]
        for name, make in policies.items()
    }


def summarise_outcomes(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the figures of one policy over several traces."""
    waits = np.concatenate([one.waits for one in outcomes])
    p50, p95, p99 = np.percentile(waits, [50, 95, 99])
    hours = sum(one.gpu_hours for one in outcomes)
    most = max(total for one in outcomes for _, _, total, _ in one.history)
    return {"p50_s": p50, "p95_s": p95, "p99_s": p99, "gpu_hours": hours, "most_replicas": most}


def meets_targets(rows: Mapping[str, Mapping[str, float]]) -> bool:
    """Return whether our policy meets the targets."""
    ours, serve, oracle = rows["ours"], rows[BASELINE], rows["oracle"]
    return bool(
        ours["p95_s"] <= WAITS * serve["p95_s"]
        and ours["gpu_hours"] <= HOURS * serve["gpu_hours"]
        and ours["gpu_hours"] <= ORACLE * oracle["gpu_hours"]
    )


def print_table(
    family: str, scale: str, requests: int, rows: Mapping[str, Mapping[str, float]]
) -> None:
    """Print the table of one family of traces."""
    print(f"\n{family}, {scale}: {requests:,} requests")
    print("| policy | p50 s | p95 s | p99 s | GPU-hours | by the oracle's | most replicas |")
    print("|---|---|---|---|---|---|---|")
    for name, one in rows.items():
        by_oracle = one["gpu_hours"] / rows["oracle"]["gpu_hours"]
        print(
            f"| {name} | {one['p50_s']:.2f} | {one['p95_s']:.2f} | {one['p99_s']:.2f} "
            f"| {one['gpu_hours']:.1f} | {by_oracle:.2f} | {one['most_replicas']:.0f} |"
        )


def main() -> None:
    """Replay all families and print tables; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", help="instead of those from 100 on")
    parser.add_argument("--plot", type=Path, help="a folder for one picture a family")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for scale, peak in PEAKS.items():
        seeds = arguments.seeds or range(FIRST_SEED, FIRST_SEED + SEEDS[scale])
        for family in FAMILIES:
            traces = draw_traces(family, seeds, peak)
            outcomes = replay_traces(traces, POLICIES)
            rows = {name: summarise_outcomes(ones) for name, ones in outcomes.items()}
            print_table(family, scale, sum(len(trace.at) for trace in traces), rows)
            gate = meets_targets(rows) if family in GATED else None
            found.append({"family": family, "scale": scale, "reached": gate, "rows": rows})
            if arguments.plot:
                first = {name: ones[0] for name, ones in outcomes.items()}
                plots.draw_trace(arguments.plot, f"{family}, {scale}", traces[0], first)
    print(json.dumps({"machine": MACHINE.__dict__, "results": found}, default=float))


if __name__ == "__main__":
    main()
