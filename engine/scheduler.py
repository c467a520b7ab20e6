"""Who runs in the next step: everyone who has a slot, and as many more as there are slots."""

import heapq
import itertools
import time

from engine.cache import Segment
from engine.request import Request
from engine.slots import Slots


class Scheduler:
    """First come, first served within a priority.

    A prompt is fed in chunks of at most `chunk` positions a step, shared by all who have one to
    feed, so that it delays its neighbours by little.
    """

    def __init__(self, slots: int, chunk: int) -> None:
        self.slots = Slots(slots)
        self.running: dict[int, Request] = {}
        self._chunk = chunk
        self._arrivals = itertools.count()
        self._waiting: list[tuple[int, int, Request]] = []

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def queued_rows(self) -> int:
        """Rows by frames, of requests without a slot; another thread may ask."""
        return sum(request.rows_to_make for *_, request in list(self._waiting))

    @property
    def rows(self) -> int:
        """Rows of requests that have a slot; another thread may ask."""
        return sum(request.rows for request in list(self.running.values()))

    def add(self, request: Request) -> None:
        """Let a request wait for a slot."""
        heapq.heappush(self._waiting, (request.priority, next(self._arrivals), request))

    def admit(self) -> list[tuple[int, Request]]:
        """Give free slots to those who wait; return who got which."""
        admitted = []
        while self._waiting and self.slots.available:
            *_, request = heapq.heappop(self._waiting)
            request.slot = slot = self.slots.take()
            request.started = time.perf_counter()
            self.running[slot] = request
            admitted.append((slot, request))
        return admitted

    def segments(self) -> list[Segment]:
        """Return what each running request feeds in this step."""
        left = self._chunk
        segments = []
        for slot, request in self.running.items():
            count = request.unfed
            if count > 1:
                count = min(count, left)
                left -= count
            if count:
                segments.append(Segment(slot, request.rows, request.fed, count))
        return segments

    def remove(self, request: Request) -> bool:
        """Take a request out, wherever it is; return whether it was there."""
        if request.slot is not None:
            del self.running[request.slot]
            self.slots.give_back(request.slot)
            request.slot = None
            return True
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[2] is not request]
        heapq.heapify(self._waiting)
        return len(self._waiting) < before
