"""Clients in a process of their own: as many at once as are told, or when they are told."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import numpy as np

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class TimedRequest:
    """A request, and when it comes, in seconds since the first may."""

    at: float
    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a request; times are from when it was to come."""

    at: float
    kind: str
    """A status, or what an exception is called."""
    first_s: float
    """To the first byte of its body."""
    whole_s: float
    audio_s: float
    timing: str = ""
    """`server-timing`."""


async def _send_request(
    http: aiohttp.ClientSession, request: TimedRequest, since: float
) -> Outcome:
    first, timing = 0.0, ""
    try:
        async with http.post(request.path, json=request.body) as response:
            async for _ in response.content.iter_any():
                first = first or time.perf_counter() - since
            kind, timing = str(response.status), response.headers.get("server-timing", "")
    except (aiohttp.ClientError, TimeoutError) as error:
        kind = type(error).__name__
    whole = time.perf_counter() - since
    made = request.body["duration"] if kind == "200" else 0.0
    return Outcome(request.at, kind, first or whole, whole, made, timing)


def _open_session(url: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(url, timeout=timeout, connector=connector)


def run_open_loop(url: str, requests: Sequence[TimedRequest]) -> list[Outcome]:
    """Send each at its time, whatever became of the others."""

    async def run_all() -> list[Outcome]:
        async with _open_session(url) as http:
            begun = time.perf_counter()

            async def send_at(request: TimedRequest) -> Outcome:
                await asyncio.sleep(begun + request.at - time.perf_counter())
                return await _send_request(http, request, begun + request.at)

            return await asyncio.gather(*map(send_at, requests))

    return asyncio.run(run_all())


def run_closed_loop(
    url: str, requests: Sequence[TimedRequest], at_once: int, seconds: float
) -> list[Outcome]:
    """Let so many clients ask these in turn, again and again, for so long."""

    async def run_all() -> list[Outcome]:
        outcomes: list[Outcome] = []
        begun = time.perf_counter()
        turns = itertools.cycle(requests)

        async def run_client() -> None:
            while (now := time.perf_counter()) < begun + seconds:
                request = replace(next(turns), at=now - begun)
                outcomes.append(await _send_request(http, request, now))

        async with _open_session(url) as http:
            await asyncio.gather(*(run_client() for _ in range(at_once)))
        return outcomes

    return asyncio.run(run_all())


def draw_requests(
    rate: float, seconds: float, make: Callable[[np.random.Generator], TimedRequest], seed: int
) -> list[TimedRequest]:
    """Draw requests that come at random, so many a second on average."""
    draw = np.random.default_rng(seed)
    at = np.cumsum(draw.exponential(1 / rate, int(2 * rate * seconds) + 10))
    drawn = (make(draw) for _ in range(len(at)))
    return [
        TimedRequest(float(t), request.path, request.body)
        for t, request in zip(at, drawn, strict=True)
        if t < seconds
    ]


def steady_rate(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Return how many a second ended well, once a third of the time had passed and until its end.

    What ends later began in that time as what ended early in it began before.
    """
    ends = (one.at + one.whole_s for one in outcomes if one.kind == "200")
    return round(sum(seconds / 3 <= end < seconds for end in ends) / (seconds * 2 / 3), 2)


def summarise_outcomes(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Return what a table has of them: of those that were answered with 200, and all by kind."""
    good = [one for one in outcomes if one.kind == "200"]
    row: dict[str, Any] = {
        "requests": len(outcomes),
        "goodput_per_s": round(len(good) / seconds, 2),
        "audio_s_per_s": round(sum(one.audio_s for one in good) / seconds, 2),
    }
    for name in ("first_s", "whole_s"):
        times = [getattr(one, name) for one in good] or [float("nan")]
        for percent in (50, 95, 99):
            row[f"{name}_p{percent}"] = round(float(np.percentile(times, percent)), 4)
    return row | {"kinds": dict(Counter(one.kind for one in outcomes))}
