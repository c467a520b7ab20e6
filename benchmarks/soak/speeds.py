"""Compares the speed of a model in /v1/stats with the work that clients see done."""

import asyncio
import json
import statistics
import time
from typing import Any

from benchmarks.soak.traffic import PATH, REFUSED, Traffic

CLIENTS = 40
"""More than the slots, so that no slot is free."""
CLIP_S, ROWS = 5.0, 2
SETTLE = 0.4
"""The first part of the time, in which clips begin together and nothing is measured."""
WITHIN = 0.2
"""How far a stated speed may be from the truth."""


async def read_statistics(traffic: Traffic) -> dict[str, Any]:
    """Return the answer of /v1/stats."""
    _, body = await traffic.send_surely("GET", "/v1/stats", 120)
    found: dict[str, Any] = json.loads(body)
    return found


async def measure_speed(traffic: Traffic, model: str, seconds: float) -> dict[str, Any]:
    """Keep all slots of a model taken; return the stated speed and the true one.

    The truth is the work that clients saw done, where a clip's work is spread evenly over its time.
    Both are in row-seconds per second.
    """
    stated: list[float] = []
    done: list[tuple[float, float]] = []
    begun = time.monotonic()
    end = begun + seconds
    body = {"prompt": "calm piano", "duration": CLIP_S, "model": model}

    async def keep_asking() -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            status, _ = await traffic.send("POST", PATH, json=body)
            if status == 200:
                done.append((started, time.monotonic()))
            elif status == REFUSED:
                await asyncio.sleep(0.5)

    async def read_speeds() -> None:
        while time.monotonic() < end:
            found = await read_statistics(traffic)
            speed = found["backlog"].get(model, {}).get("row_seconds_per_second")
            if speed and time.monotonic() > begun + SETTLE * seconds:
                stated.append(speed)
            await asyncio.sleep(1)

    await asyncio.gather(read_speeds(), *(keep_asking() for _ in range(CLIENTS)))
    since = begun + SETTLE * seconds
    work = sum(share_within(one, (since, end)) for one in done) * ROWS * CLIP_S
    truth = work / (end - since)
    said = statistics.median(stated) if stated else float("nan")
    return {
        "model": model,
        "stated": round(said, 1),
        "truth": round(truth, 1),
        "ratio": round(said / truth, 3) if truth else float("nan"),
    }


def share_within(clip: tuple[float, float], window: tuple[float, float]) -> float:
    """Return which part of a clip's time lies within a window."""
    first, last = max(clip[0], window[0]), min(clip[1], window[1])
    return max(last - first, 0.0) / (clip[1] - clip[0])
