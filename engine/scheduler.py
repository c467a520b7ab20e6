"""Decides which requests take part in the next decode step, and what each feeds to the model."""

import heapq
import itertools
import time

from engine.cache import Segment
from engine.request import Request
from engine.slots import Slots


class Scheduler:
    """A queue of waiting requests, by priority and then by arrival, and the running requests.

    Prompts are fed in chunks, at most `chunk` positions per step over all requests, so that a
    long prompt does not delay the other requests of the step much.
    """

    def __init__(self, slots: int, chunk: int) -> None:
        self.slots = Slots(slots)
        self.running: dict[int, Request] = {}
        self._chunk = chunk
        self._arrivals = itertools.count()
        self._waiting: list[tuple[float, int, Request]] = []

    @property
    def waiting(self) -> int:
        """The number of requests without a slot."""
        return len(self._waiting)

    @property
    def queued_rows(self) -> int:
        """Rows times positions, summed over the waiting requests; any thread may read it."""
        return sum(request.row_positions for *_, request in list(self._waiting))

    @property
    def rows(self) -> int:
        """The rows of all running requests; any thread may read it."""
        return sum(request.rows for request in list(self.running.values()))

    def add_request(self, request: Request) -> None:
        """Put a request into the queue."""
        heapq.heappush(self._waiting, (request.priority, next(self._arrivals), request))

    def admit_requests(self) -> list[tuple[int, Request]]:
        """Give free slots to waiting requests; return each admitted request with its slot."""
        admitted = []
        while self._waiting and self.slots.available:
            *_, request = heapq.heappop(self._waiting)
            request.slot = slot = self.slots.take_slot()
            request.started = time.perf_counter()
            self.running[slot] = request
            admitted.append((slot, request))
        return admitted

    def plan_segments(self) -> list[Segment]:
        """Return the positions that each running request feeds in this step."""
        budget = self._chunk
        segments = []
        for slot, request in self.running.items():
            count = request.unfed
            if count > 1:
                count = min(count, budget)
                budget -= count
            if count:
                segments.append(Segment(slot, request.rows, request.fed, count))
        return segments

    def remove_request(self, request: Request) -> bool:
        """Remove a waiting or running request; return whether it was found."""
        if request.slot is not None:
            del self.running[request.slot]
            self.slots.give_back(request.slot)
            request.slot = None
            return True
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[2] is not request]
        heapq.heapify(self._waiting)
        return len(self._waiting) < before
