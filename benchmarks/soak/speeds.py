"""Compares the speed of a model in /v1/stats with the work that clients see done."""

import asyncio
import json
import statistics
import time
from contextlib import suppress
from typing import Any

from benchmarks.soak.processes import KEYS
from benchmarks.soak.traffic import BYTES_PER_SECOND, PATH, Traffic

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

    The truth is the audio that arrives in streams. Both are in row-seconds per second.
    """
    stated: list[float] = []
    arrived = 0
    since, end = time.monotonic() + SETTLE * seconds, time.monotonic() + seconds

    async def keep_asking() -> None:
        nonlocal arrived
        while True:
            async with traffic.http.post(PATH, json=body, headers=headers) as response:
                async for part in response.content.iter_any():
                    arrived += len(part) * (response.status == 200 and time.monotonic() > since)
            if response.status != 200:
                await asyncio.sleep(1)

    async def read_speeds() -> None:
        while True:
            found = await read_statistics(traffic)
            speed = found["backlog"].get(model, {}).get("row_seconds_per_second")
            if speed and time.monotonic() > since:
                stated.append(speed)
            await asyncio.sleep(1)

    body = {"prompt": "calm piano", "duration": CLIP_S, "model": model, "stream": True}
    headers = {"authorization": f"Bearer {KEYS['studio']}"}
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(read_speeds(), *(keep_asking() for _ in range(CLIENTS)))
    truth = ROWS * arrived / BYTES_PER_SECOND / (end - since)
    said = statistics.median(stated) if stated else float("nan")
    return {
        "model": model,
        "stated": round(said, 1),
        "truth": round(truth, 1),
        "ratio": round(said / truth, 3) if truth else float("nan"),
    }
