"""Compares a simple first server with ours: same weights, same requests at the same times.

    python -m benchmarks.naive [--minutes 2] [--loads 0.5 1 2]

A load of 1 is the rate at which the first server serves clips one after another. Each server runs
alone. It prints a row for each server and load, then one line of JSON.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from benchmarks.load import start_client_process
from benchmarks.under_load import client, serving
from benchmarks.under_load.client import TimedRequest

DURATIONS = (1.0, 2.0, 5.0)
START_S = 120.0


def draw_request(draw: np.random.Generator) -> TimedRequest:
    """Draw a request that both servers understand."""
    seconds, seed = float(draw.choice(DURATIONS)), int(draw.integers(2**31))
    body = {"text": "calm piano", "duration": seconds, "seed": seed}
    return TimedRequest(0.0, "/generate/music", body)


@contextmanager
def run_first_server() -> Iterator[str]:
    """Run `benchmarks.under_load.naive` in a process; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.under_load.naive", str(port)]
    with subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        address, begun = f"http://127.0.0.1:{port}", time.monotonic()
        while time.monotonic() - begun < START_S:
            try:
                httpx.get(f"{address}/openapi.json")
                break
            except httpx.TransportError:
                time.sleep(0.2)
        try:
            yield address
        finally:
            process.terminate()


def replay_load(address: str, rates: list[float], seconds: float) -> list[dict[str, Any]]:
    """Send requests at each rate, all drawn from the same seed; return a row for each rate."""
    rows = []
    with start_client_process() as clients:
        for rate in rates:
            requests = client.draw_requests(rate, seconds, draw_request, seed=1)
            begun = time.monotonic()
            outcomes = clients.submit(client.run_open_loop, address, requests).result()
            # Late answers extend the measured time.
            lasted = max(seconds, time.monotonic() - begun)
            rows.append(
                {"rate_per_s": round(rate, 3), **client.summarise_outcomes(outcomes, lasted)}
            )
            print(address, rows[-1], file=sys.stderr, flush=True)
    return rows


def measure_capacity(address: str) -> float:
    """Return the clips per second when each request waits for the previous one."""
    draw = np.random.default_rng(0)
    with start_client_process() as clients:
        requests = [
            TimedRequest(0.0, one.path, one.body) for one in (draw_request(draw) for _ in range(8))
        ]
        clients.submit(client.run_open_loop, address, requests[:1]).result()  # the first warms up
        begun = time.monotonic()
        clients.submit(client.run_open_loop, address, requests).result()
        return len(requests) / (time.monotonic() - begun)


def main() -> None:
    """Measure both servers; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    options = parser.parse_args()
    with run_first_server() as address:
        most = measure_capacity(address)
        rates = [load * most for load in options.loads]
        theirs = replay_load(address, rates, 60 * options.minutes)
    serving.set_environment()
    with serving.run_serve(serving.build_config(fast=False, max_wait_s=60)) as address:
        measure_capacity(address)
        ours = replay_load(address, rates, 60 * options.minutes)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    found = {"capacity_per_s": round(most, 3), "first_server": theirs, "ours": ours}
    print(json.dumps({"machine": machine, **vars(options), **found}))


if __name__ == "__main__":
    main()
