"""Measures the highest request rate of the graph, and whether it holds a load for long.

    python -m benchmarks.load peak [--transports actors grpc haproxy]
    python -m benchmarks.load hold --load 0.7 --minutes 20 [--models bundle] [--plot FILE]

`peak` measures, for each of Serve's transports, the requests per second of closed-loop clients: in
turn for our application with models that compute nothing, and for an application with the same hops
and payloads that does nothing. `hold` sends requests at random times, at a share of the closed-loop
rate, from its own process; it reports the outcomes per minute, and the memory of each process with
its growth after the first fifth of the time. Both end with a line of JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.under_load import client, serving
from benchmarks.under_load.client import TimedRequest
from benchmarks.under_load.plots import draw_load

CLIENTS, DURATIONS = 32, (1.0, 2.0, 5.0, 10.0)
PEAK_S = 60.0
"""Seconds for which `hold` measures the peak rate."""
MOST_OF_ITS_PEAK = 0.7
"""Target: our peak rate relative to the application that does nothing."""


def build_request(path: str, seconds: float) -> TimedRequest:
    """Build a request for a clip; without a seed, every clip is different."""
    return TimedRequest(0.0, path, {"prompt": "calm piano", "duration": seconds})


def draw_request(draw: np.random.Generator) -> TimedRequest:
    """Draw a request for a clip of random length, half of them as a stream."""
    request = build_request(serving.OURS, float(draw.choice(DURATIONS)))
    return TimedRequest(0.0, request.path, request.body | {"stream": bool(draw.integers(2))})


def start_client_process() -> ProcessPoolExecutor:
    """Start a process for the clients."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def measure_transport(transport: str, rounds: int, seconds: float) -> None:
    """Measure both applications in turn under one transport; print the row as JSON."""
    serving.set_environment(transport)
    config = serving.build_config(fast=True, max_wait_s=60)
    rates: dict[str, list[float]] = {serving.OURS: [], serving.NOOP: []}
    with serving.run_serve(config) as address, start_client_process() as clients:
        for number in range(rounds + 1):
            for path in sorted(rates, reverse=bool(number % 2)):
                given = address, [build_request(path, 2.0)], CLIENTS, seconds
                outcomes = clients.submit(client.run_closed_loop, *given).result()
                row = client.summarise_outcomes(outcomes, seconds)
                assert set(row["kinds"]) == {"200"}, row["kinds"]
                if number:  # the first warms up
                    rates[path].append(row["goodput_per_s"])
                print(transport, path, row, file=sys.stderr, flush=True)
    ratios = [ours / its for ours, its in zip(*rates.values(), strict=True)]
    row = {"transport": transport, "ours_per_s": statistics.median(rates[serving.OURS])}
    row |= {"noop_per_s": statistics.median(rates[serving.NOOP])}
    row |= {"ratio": round(statistics.median(ratios), 3), "ratios": sorted(ratios)}
    print(json.dumps(row))


def measure_peaks(transports: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure each transport in its own process, since Ray reads the environment only once."""
    rows = []
    for transport in transports:
        command = [sys.executable, "-m", "benchmarks.load", "peak", "--of", transport]
        command += ["--rounds", str(rounds), "--seconds", str(seconds)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows.append(json.loads(said.splitlines()[-1]))
        print({key: value for key, value in rows[-1].items() if key != "ratios"}, flush=True)
    return {"rows": rows, "to_reach": MOST_OF_ITS_PEAK}


def summarise_minutes(outcomes: list[client.Outcome], minutes: float) -> list[dict[str, Any]]:
    """Return the figures of each minute."""
    parts = []
    for minute in range(int(np.ceil(minutes))):
        lasted = min(60.0, 60 * (minutes - minute))
        of_it = [one for one in outcomes if 60 * minute <= one.at < 60 * (minute + 1)]
        parts.append({"minute": minute, **client.summarise_outcomes(of_it, lasted)})
    return parts


def fit_slopes(memory: list[dict[str, float]]) -> dict[str, float]:
    """Fit the memory growth of each process in MB per hour, after the first fifth of the time."""
    settled = [row for row in memory if row["s"] >= 0.2 * memory[-1]["s"]]
    hours = [row["s"] / 3600 for row in settled]
    names = set.intersection(*(set(row) for row in settled)) - {"s"}
    if len(settled) < 2:
        return {}
    return {
        name: round(float(np.polyfit(hours, [row[name] for row in settled], 1)[0]), 1)
        for name in sorted(names)
    }


def hold_load(fast: bool, load: float, minutes: float, transport: str) -> dict[str, Any]:
    """Measure the peak rate, hold a share of it, and measure the peak again for comparison."""
    serving.set_environment(transport)
    config = serving.build_config(fast, max_wait_s=20)
    random = np.random.default_rng(0)
    mix = [draw_request(random) for _ in range(1000)]
    with serving.run_serve(config) as address, start_client_process() as clients:

        def measure_peak() -> float:
            given = address, mix, CLIENTS, PEAK_S
            outcomes = clients.submit(client.run_closed_loop, *given).result()
            return client.steady_rate(outcomes, PEAK_S)

        rate = measure_peak()
        requests = client.draw_requests(load * rate, 60 * minutes, draw_request, seed=1)
        print(f"peak {rate:.1f}/s; {load * rate:.1f}/s for {minutes:g} minutes", flush=True)
        sending = clients.submit(client.run_open_loop, address, requests)
        memory, begun = [], time.monotonic()
        while not sending.done():
            memory.append({"s": round(time.monotonic() - begun), **serving.measure_memory()})
            wait([sending], timeout=min(30.0, 10 * minutes))
        outcomes = sending.result()
        after = measure_peak()
    by_minute = summarise_minutes(outcomes, minutes)
    for row in by_minute:
        print(row)
    whole = client.summarise_outcomes(outcomes, 60 * minutes)
    held = client.steady_rate(outcomes, 60 * minutes)
    rates: dict[str, Any] = {"peak_per_s": rate, "peak_after_per_s": after, "steady_per_s": held}
    found = {**rates, "of_peak": round(2 * held / (rate + after), 3)}
    found |= {**whole, "by_minute": by_minute}
    return found | {"memory_mb": memory, "memory_slopes_mb_per_hour": fit_slopes(memory)}


def main() -> None:
    """Run the chosen measurement; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["peak", "hold"])
    parser.add_argument("--transports", nargs="+", default=[*serving.TRANSPORTS])
    parser.add_argument("--of", choices=[*serving.TRANSPORTS], help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--load", type=float, default=0.7, help="of the peak")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--plot", type=Path, help="a PNG of `hold`")
    parser.add_argument("--models", default="fast", choices=["fast", "bundle"])
    options = parser.parse_args()
    if options.of:
        measure_transport(options.of, options.rounds, options.seconds)
        return
    if options.what == "peak":
        found = measure_peaks(options.transports, options.rounds, options.seconds)
    else:
        fast = options.models == "fast"
        found = hold_load(fast, options.load, options.minutes, options.transports[0])
        if options.plot:
            draw_load(options.plot, f"{options.load:g} of the peak, {options.models} models", found)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, **vars(options), **found}, default=str))


if __name__ == "__main__":
    main()
