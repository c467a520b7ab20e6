"""How far a session may be ahead of its listener."""

import asyncio
import time
from collections.abc import Callable

from graph.errors import ApiError


class Credit:
    """What was sent, and what was played of it: as the client says, and never before its time."""

    def __init__(
        self, ahead_s: float, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ahead_s, self._idle_s, self._clock = ahead_s, idle_s, clock
        self._sent = self._said = 0.0
        self._began: float | None = None
        self._news = asyncio.Event()

    def add_sent(self, seconds: float) -> None:
        """Take in that so much more was sent."""
        if self._began is None:
            self._began = self._clock()
        self._sent += seconds

    def set_played(self, seconds: float) -> None:
        """Take in what was played so far, all in all; of what was not sent nothing was."""
        if seconds > self._said:
            self._said = min(seconds, self._sent)
            self._news.set()

    def compute_missing(self) -> tuple[float, float]:
        """Return the seconds that are to be played before there is room, as said, and of time."""
        due = self._sent - self._ahead_s
        passed = 0.0 if self._began is None else self._clock() - self._began
        return due - self._said, due - passed

    async def wait_for_room(self) -> None:
        """Wait until no more is left to play than may be ahead.

        Raises ApiError 408 where nothing more is played for long.
        """
        while True:
            said, time_left = self.compute_missing()
            if said > 0:
                await self._wait_for_report()
            elif time_left > 0:
                await asyncio.sleep(time_left)
            else:
                return

    async def _wait_for_report(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(self._idle_s):
                await self._news.wait()
        except TimeoutError as error:
            message = (
                f"nothing more was played for {self._idle_s:g} s; say what was, now and then: "
                '{"played": seconds}'
            )
            raise ApiError(408, "idle", message) from error
