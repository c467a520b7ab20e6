"""Sends HTTP requests at given times, or from a fixed number of clients."""

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
    """A request with the time at which it is sent, in seconds after the start."""

    at: float
    path: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request; times are measured from its scheduled time."""

    at: float
    kind: str
    """The HTTP status, or the name of the exception."""
    first_s: float
    """Seconds to the first byte of the body."""
    whole_s: float
    """Seconds to the end of the body."""
    audio_s: float
    """Seconds of audio in the answer."""
    timing: str = ""
    """The `server-timing` header."""


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
    """Send each request at its time, independent of the other answers."""

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
    """Let `at_once` clients send the requests in turn, repeatedly, for so many seconds."""

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
    """Draw requests with Poisson arrivals at `rate` per second."""
    draw = np.random.default_rng(seed)
    at = np.cumsum(draw.exponential(1 / rate, int(2 * rate * seconds) + 10))
    drawn = (make(draw) for _ in range(len(at)))
    return [
        TimedRequest(float(t), request.path, request.body)
        for t, request in zip(at, drawn, strict=True)
        if t < seconds
    ]


def steady_rate(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Return the successful requests per second in the last two thirds of the time.

    Requests still running at the end balance those that were running at the beginning.
    """
    ends = (one.at + one.whole_s for one in outcomes if one.kind == "200")
    return round(sum(seconds / 3 <= end < seconds for end in ends) / (seconds * 2 / 3), 2)


def summarise_outcomes(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Return the figures of all requests with status 200, and the number of each kind."""
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
