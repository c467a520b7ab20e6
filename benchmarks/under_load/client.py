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
class Ask:
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


async def _ask(http: aiohttp.ClientSession, ask: Ask, since: float) -> Outcome:
    first, timing = 0.0, ""
    try:
        async with http.post(ask.path, json=ask.body) as response:
            async for _ in response.content.iter_any():
                first = first or time.perf_counter() - since
            kind, timing = str(response.status), response.headers.get("server-timing", "")
    except (aiohttp.ClientError, TimeoutError) as error:
        kind = type(error).__name__
    whole = time.perf_counter() - since
    made = ask.body["duration"] if kind == "200" else 0.0
    return Outcome(ask.at, kind, first or whole, whole, made, timing)


def _session(url: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(url, timeout=timeout, connector=connector)


def open_loop(url: str, asks: Sequence[Ask]) -> list[Outcome]:
    """Send each at its time, whatever became of the others."""

    async def run() -> list[Outcome]:
        async with _session(url) as http:
            begun = time.perf_counter()

            async def one(ask: Ask) -> Outcome:
                await asyncio.sleep(begun + ask.at - time.perf_counter())
                return await _ask(http, ask, begun + ask.at)

            return await asyncio.gather(*map(one, asks))

    return asyncio.run(run())


def closed_loop(url: str, asks: Sequence[Ask], at_once: int, seconds: float) -> list[Outcome]:
    """Let so many clients ask these in turn, again and again, for so long."""

    async def run() -> list[Outcome]:
        outcomes: list[Outcome] = []
        begun = time.perf_counter()
        turns = itertools.cycle(asks)

        async def client() -> None:
            while (now := time.perf_counter()) < begun + seconds:
                ask = replace(next(turns), at=now - begun)
                outcomes.append(await _ask(http, ask, now))

        async with _session(url) as http:
            await asyncio.gather(*(client() for _ in range(at_once)))
        return outcomes

    return asyncio.run(run())


def arrivals(
    rate: float, seconds: float, make: Callable[[np.random.Generator], Ask], seed: int
) -> list[Ask]:
    """Draw requests that come at random, so many a second on average."""
    draw = np.random.default_rng(seed)
    at = np.cumsum(draw.exponential(1 / rate, int(2 * rate * seconds) + 10))
    drawn = (make(draw) for _ in range(len(at)))
    return [
        Ask(float(t), ask.path, ask.body) for t, ask in zip(at, drawn, strict=True) if t < seconds
    ]


def steady(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Return how many a second ended well, once a third of the time had passed and until its end.

    What ends later began in that time as what ended early in it began before.
    """
    ends = (one.at + one.whole_s for one in outcomes if one.kind == "200")
    return round(sum(seconds / 3 <= end < seconds for end in ends) / (seconds * 2 / 3), 2)


def figures(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
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
