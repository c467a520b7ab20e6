"""Holds a mixed load for long while processes are killed; then nothing may be lost or leaked.

    python -m benchmarks.soak --minutes 60 --load 0.7

It starts the shipped application with the embedded models that are awake. It measures the speeds of
the language models and how many requests of the mix are answered in a second, and then sends a
share of that at random times: clips, streams, clients that leave, uploads that are refused, bad
bodies, and jobs that are cancelled, deleted or awaited, with webhooks to a living receiver and to
dead ones. From time to time it kills a process. Memory and open files are measured after the warm-
up and at the end, both times once everything is idle. It prints a table, then one line of JSON, and
ends with status 1 where a criterion fails.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from benchmarks.soak.jobs import JobBook
from benchmarks.soak.receivers import open_receivers
from benchmarks.soak.run import Soak
from benchmarks.soak.traffic import TIMEOUT_S, Traffic


async def run_soak(address: str, minutes: float, load: float) -> dict[str, Any]:
    """Run all parts of a soak; return what was found."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        open_receivers() as receivers,
        aiohttp.ClientSession(address, timeout=timeout, connector=connector) as http,
    ):
        traffic = Traffic(http, Random(1))
        return await Soak(traffic, JobBook(traffic, receivers), minutes, load).run()


def print_table(found: dict[str, Any]) -> None:
    """Print memory and open files per process, speeds, outcomes and criteria."""
    print(
        "\n| process | restarts | resident MB | unshared MB | open files |\n|---|---|---|---|---|"
    )
    for name, was in sorted(found["before"].items()):
        now = found["after"].get(name)
        cells = [f"{was[key]} to {now[key]}" if now else "missing"
                 for key in ("resident_mb", "unshared_mb", "files")]  # fmt: skip
        print(f"| {name} | {found['kills'].count(name)} | {' | '.join(cells)} |")
    print("\n| speed of | when | stated | truth | ratio |\n|---|---|---|---|---|")
    for row in found["speeds"]:
        print("| " + " | ".join(str(row[key]) for key in row) + " |")
    print("\n| request | outcome | times |\n|---|---|---|")
    for (kind, outcome), times in sorted(found["outcomes"].items()):
        print(f"| {kind} | {outcome} | {times} |")
    print("\n| jobs | number |\n|---|---|")
    for status, number in found["jobs"].items():
        print(f"| {status} | {number} |")
    print("\n| criterion | holds | |\n|---|---|---|")
    for name, problems in found["criteria"].items():
        shown = "; ".join(problems[:5]) + (f" and {len(problems) - 5} more" * (len(problems) > 5))
        print(f"| {name} | {'no' if problems else 'yes'} | {shown} |")


def main() -> int:
    """Run a soak; the last line is JSON. Return 1 where a criterion fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--load", type=float, default=0.7, help="of the rate that was measured")
    options = parser.parse_args()
    from benchmarks.soak import processes
    from benchmarks.under_load import serving

    serving.set_environment()
    with tempfile.TemporaryDirectory() as folder:
        config = processes.build_config(Path(folder))
        with serving.run_serve(config) as address:
            found = asyncio.run(run_soak(address, options.minutes, options.load))
    print_table(found)
    found["outcomes"] = [[*key, times] for key, times in sorted(found["outcomes"].items())]
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, **vars(options), **found}))
    return int(any(found["criteria"].values()))


if __name__ == "__main__":
    sys.exit(main())
