"""Sends what the clients of a soak send, and notes how it ends."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from benchmarks.soak.processes import KEYS

TIMEOUT_S = 300.0
DISTURBED_S = 60.0
"""For so many seconds after a kill, a request may fail."""
RETRY_S = 1.0
REFUSED = 429
PATH = "/v1/generations"
BYTES_PER_SECOND = 2 * 16_000
"""The size of a second of the bundle's audio, at 16 bits."""
Answer = tuple[int, bytes]
FAILURES = (aiohttp.ClientError, TimeoutError)


@dataclass
class Traffic:
    """The clients' connections, and what has happened to their requests."""

    http: aiohttp.ClientSession
    draw: Random
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each kind of request ended in each way."""
    unexpected: list[str] = field(default_factory=list)
    """What no server should answer."""
    killed_at: list[float] = field(default_factory=list)
    """The times of kills, of `time.monotonic`."""

    async def send(self, method: str, path: str, key: str = "studio", **given: Any) -> Answer:
        """Return the status and the body. Raises one of `FAILURES`."""
        headers = {"authorization": f"Bearer {KEYS[key]}"} | given.pop("headers", {})
        async with self.http.request(method, path, headers=headers, **given) as response:
            return response.status, await response.read()

    async def send_surely(self, method: str, path: str, limit_s: float, **given: Any) -> Answer:
        """Send a request until it is answered by something else than an error of the server.

        Raises one of `FAILURES` where that takes longer than `limit_s`.
        """
        end = time.monotonic() + limit_s
        while True:
            late = time.monotonic() > end
            try:
                status, body = await self.send(method, path, **given)
                if status < 500:
                    return status, body
                if late:
                    raise TimeoutError(f"{method} {path}: {status} {body[:200]!r}")
            except FAILURES:
                if late:
                    raise
            await asyncio.sleep(RETRY_S)

    @asynccontextmanager
    async def note_outcome(self, kind: str, allowed: Collection[int]) -> AsyncGenerator["Noted"]:
        """Count how a request ends: by its status, or as disturbed by a kill; else unexpected."""
        noted, begun = Noted(), time.monotonic()
        try:
            yield noted
        except FAILURES as error:
            noted.what = f"{type(error).__name__}: {error}"
        if noted.status in (*allowed, REFUSED) and not noted.what:
            self.outcomes[kind, str(noted.status)] += 1
        elif any(begun - DISTURBED_S < at < time.monotonic() for at in self.killed_at):
            self.outcomes[kind, f"disturbed ({noted.status or 'no answer'})"] += 1
        else:
            self.outcomes[kind, "unexpected"] += 1
            self.unexpected.append(f"{kind}: {noted.status} {noted.what or noted.body[:300]!r}")
            print(self.unexpected[-1], flush=True)


@dataclass
class Noted:
    """What is known of a request."""

    status: int = 0
    body: bytes = b""
    what: str = ""
    """What is wrong beside the status."""


async def request_clip(traffic: Traffic, kind: str, body: dict[str, Any], **headers: str) -> None:
    """Request clips, read the whole answer, and check its length."""
    async with traffic.note_outcome(kind, [200]) as noted:
        noted.status, noted.body = await traffic.send("POST", PATH, json=body, headers=headers)
        short = len(noted.body) < 0.98 * BYTES_PER_SECOND * body["duration"]
        if noted.status == 200 and short:
            noted.what = f"only {len(noted.body)} bytes for {body['duration']} s"


async def leave_early(traffic: Traffic, kind: str, body: dict[str, Any], after_s: float) -> None:
    """Request a clip, and close the connection after some seconds, within or before the answer."""
    async with traffic.note_outcome(kind, [200]) as noted:
        try:
            async with asyncio.timeout(after_s):
                noted.status, noted.body = await traffic.send("POST", PATH, json=body)
        except TimeoutError:
            noted.status = 200
