"""Limits how far a live session may be ahead of its listener."""

import asyncio
import time
from collections.abc import Callable

from graph.errors import ApiError


class Credit:
    """The seconds that were sent, and those played: by the client's reports and by the clock."""

    def __init__(
        self, ahead_s: float, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ahead_s, self._idle_s, self._clock = ahead_s, idle_s, clock
        self._sent = self._reported = 0.0
        self._began: float | None = None
        self._report_arrived = asyncio.Event()

    def add_sent(self, seconds: float) -> None:
        """Add seconds that were sent."""
        if self._began is None:
            self._began = self._clock()
        self._sent += seconds

    def set_played(self, seconds: float) -> None:
        """Set the total of seconds that were played, which is at most what was sent."""
        if seconds > self._reported:
            self._reported = min(seconds, self._sent)
            self._report_arrived.set()

    def compute_missing(self) -> tuple[float, float]:
        """Return the seconds to play before more may be sent, by the reports and by the clock."""
        due = self._sent - self._ahead_s
        passed = 0.0 if self._began is None else self._clock() - self._began
        return due - self._reported, due - passed

    async def wait_for_room(self) -> None:
        """Wait until the seconds left to play are few enough to send more.

        Raises ApiError 408 where no new playback is reported for too long.
        """
        while True:
            unreported, time_left = self.compute_missing()
            if unreported > 0:
                await self._wait_for_report()
            elif time_left > 0:
                await asyncio.sleep(time_left)
            else:
                return

    async def _wait_for_report(self) -> None:
        self._report_arrived.clear()
        try:
            async with asyncio.timeout(self._idle_s):
                await self._report_arrived.wait()
        except TimeoutError as error:
            message = (
                f"no playback was reported for {self._idle_s:g} s; report the total now and then: "
                '{"played": seconds}'
            )
            raise ApiError(408, "idle", message) from error
