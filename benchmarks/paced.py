"""An engine that takes the time of a model and computes nothing: for what is around it."""

import asyncio
import time
from collections.abc import AsyncGenerator

from benchmarks.autoscale.fleet import FRAME_RATE, Machine

FIRST_S = 0.3
"""Of audio, that a request's first part is."""


class PacedEngine:
    """Requests that have a slot share its steps, which take longer the more they are."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._slots = asyncio.Semaphore(machine.slots)
        self._steps, self._at = 0.0, time.monotonic()
        self.running = 0
        self._changed = asyncio.Event()

    async def generate(self, seconds: float) -> AsyncGenerator[float, None]:
        """Yield seconds of audio as they are made: the first of them, then all others."""
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
