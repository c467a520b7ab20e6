"""Decides which requests take part in the next decode step, and what each feeds to the model."""

import heapq
import itertools
import time

from engine.cache import Segment
from engine.errors import GenerationFailed
from engine.page_table import TEXT_ROW, PageTable, count_peak_pages
from engine.request import Request


class Scheduler:
    """A queue of waiting requests, by priority and then by arrival, and the running requests.

    The first waiting request starts when a slot is free and its pages will suffice until its end,
    so a running request is never interrupted. No other request starts before it: a large request
    waits at most until those that run have ended, however many small ones arrive. Letting small
    ones pass would let at most 7 % more run at once (simulated).

    Prompts are fed in chunks, at most `chunk` positions per step over all requests, so that a
    long prompt does not delay the other requests of the step much.
    """

    def __init__(self, pages: PageTable, chunk: int) -> None:
        self.pages = pages
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
        """Start the waiting requests that have room; return each with its slot."""
        admitted = []
        while self._waiting and self.pages.has_free_slot and self._has_room(self._waiting[0][2]):
            *_, request = heapq.heappop(self._waiting)
            request.slot = slot = self.pages.take_slot()
            request.started = time.perf_counter()
            self.running[slot] = request
            admitted.append((slot, request))
        return admitted

    def _has_room(self, request: Request) -> bool:
        """Return whether a request can start; one that runs alone always can."""
        demands = [one.demand for one in self.running.values()]
        return not demands or count_peak_pages([*demands, request.demand]) <= self.pages.limit

    def plan_segments(self) -> list[Segment]:
        """Return the positions that each running request feeds in this step; give them pages."""
        budget = self._chunk
        segments = []
        for slot, request in self.running.items():
            count = request.unfed
            if count > 1:
                count = min(count, budget)
                budget -= count
            if count:
                segments.append(Segment(slot, request.rows, request.fed, count))
                request.held = max(request.held, request.fed + count)
                for row in range(request.rows):
                    self.pages.extend_row(slot, row, request.held)
        self.pages.upload()
        return segments

    def hold_text(self, request: Request) -> None:
        """Give the text's row of a request that starts the pages of its text."""
        assert request.slot is not None
        self.pages.extend_row(request.slot, TEXT_ROW, request.text_tokens)

    def replace_text(self, request: Request) -> None:
        """Give the text's row of a running request the pages of its new text.

        Raises GenerationFailed if there are too few.
        """
        assert request.slot is not None
        if count_peak_pages([one.demand for one in self.running.values()]) > self.pages.limit:
            raise GenerationFailed("there is no room for a longer text beside the other requests")
        self.pages.free_row(request.slot, TEXT_ROW)
        self.hold_text(request)

    def shrink_pool(self) -> None:
        """Withhold the pages that the running requests will not need, after memory ran out."""
        self.pages.shrink(count_peak_pages([one.demand for one in self.running.values()]))

    def remove_request(self, request: Request) -> bool:
        """Remove a waiting or running request; return whether it was found."""
        if request.slot is not None:
            del self.running[request.slot]
            self.pages.free_slot(request.slot)
            request.slot = None
            return True
        before = len(self._waiting)
        self._waiting = [entry for entry in self._waiting if entry[2] is not request]
        heapq.heapify(self._waiting)
        return len(self._waiting) < before
