"""Measures how long the first request waits for a model that was scaled to zero replicas.

`python -m benchmarks.cold_start [--rounds 5]` serves the embedded music model with `min_replicas`
0, requests a second of audio when no replica runs, and again when one does. It prints a row per
round, then one line of JSON.
"""

import argparse
import json
import os
import platform
import statistics
import time

import httpx

from benchmarks.under_load import serving

BODY = {"prompt": "calm piano", "duration": 1.0, "seed": 1}
SLEEP_S = 120.0


def count_replicas() -> int:
    """Return the number of running replicas of the music model."""
    from ray import serve

    music = serve.status().applications["audiocraft"].deployments["music"]
    return int(music.replica_states.get("RUNNING", 0))


def wait_until_asleep() -> None:
    """Wait until no replica runs; raise TimeoutError after SLEEP_S seconds."""
    end = time.monotonic() + SLEEP_S
    while count_replicas():
        if time.monotonic() > end:
            raise TimeoutError(f"the model still runs after {SLEEP_S:g} s")
        time.sleep(0.5)


def time_clip(http: httpx.Client) -> float:
    """Return the seconds that one clip takes."""
    begun = time.perf_counter()
    http.post(serving.OURS, json=BODY).raise_for_status()
    return round(time.perf_counter() - begun, 2)


def main() -> None:
    """Measure each round; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    serving.set_environment()
    config = serving.build_config(fast=False, max_wait_s=60)
    (music,) = (
        one for one in config["applications"][0]["args"]["models"] if one["name"] == "music"
    )
    music["replicas"] = {"min_replicas": 0, "max_replicas": 1, "patience_s": 1, "idle_s": 1}
    rows = []
    with serving.run_serve(config) as address, httpx.Client(base_url=address, timeout=300) as http:
        for _ in range(options.rounds):
            wait_until_asleep()
            rows.append({"asleep_s": time_clip(http), "awake_s": time_clip(http)})
            print(rows[-1], flush=True)
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, "rows": rows, **medians}))


if __name__ == "__main__":
    main()
