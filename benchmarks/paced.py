"""Simulates the timing of an engine without computing, to measure the code around it."""

import asyncio
import time
from collections.abc import AsyncGenerator

from benchmarks.autoscale.fleet import FRAME_RATE, Machine

FIRST_S = 0.3
"""Seconds of audio in the first part of an answer."""


class PacedEngine:
    """A simulated engine; running requests share steps, and more requests make steps slower."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._slots = asyncio.Semaphore(machine.slots)
        self._steps, self._at = 0.0, time.monotonic()
        self.running = 0
        self._changed = asyncio.Event()

    async def generate(self, seconds: float) -> AsyncGenerator[float, None]:
        """Yield the seconds of audio that are done: after the first part, then at the end."""
        async with self._slots:
            self._change_running(1)
            try:
                begun = self._advance_steps()
                for until in (min(FIRST_S, seconds), seconds):
                    await self._wait_for_step(begun + until * FRAME_RATE)
                    yield until
            finally:
                self._change_running(-1)

    def _advance_steps(self) -> float:
        now = time.monotonic()
        if self.running:
            self._steps += (now - self._at) / self._machine.step_s(self.running)
        self._at = now
        return self._steps

    def _change_running(self, more: int) -> None:
        self._advance_steps()
        self.running += more
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for_step(self, steps: float) -> None:
        while (left := steps - self._advance_steps()) > 0:
            wait = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait({wait}, timeout=left * self._machine.step_s(self.running))
            wait.cancel()
