"""Gives the rows of requests their pages of the cache.

Keys and values lie in pages of `PAGE` positions. One contiguous range for each row would need no
table, but 11 to 16 % of the memory would be free and too scattered to use (simulated: 2 GB,
musicgen-small in float32, clips of 2 to 30 s). Pages also let a row grow while it is decoded, which
nearly doubles how many requests run at once (`count_peak_pages`).
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

PAGE = 16
"""The positions of a page."""
ROWS, TEXT_ROW = 3, 2
"""Each slot has three rows in the table: the conditional row, the null row, and the text."""
NEVER = 1 << 40
"""The steps left of a request whose last step is not certain."""
RECOVERY_STEPS, LONGEST_RECOVERY = 1000, 64_000
"""The steps after which pages that were withheld are given out again: the first number, which
doubles each time up to the second, so that no shortage of long ago withholds them for days."""
Count = TypeVar("Count", int, NDArray[np.int64])


class Demand(NamedTuple):
    """What a request needs of the cache, now and later."""

    rows: int
    known: int
    """The positions of each row that can be fed now, counted from the start of its window."""
    held: int
    """The positions of each row that were fed in its longest window so far."""
    needed: int
    """The positions of each row at the end of its window."""
    text: int
    """The tokens of its text."""
    steps_left: int
    """The steps until it ends, or NEVER."""


def count_pages(positions: Count) -> Count:
    """Return the pages that so many positions of one row take."""
    return -(-positions // PAGE)


def count_peak_pages(demands: Sequence[Demand]) -> int:
    """Return the most pages that these requests will hold at once if no other request starts.

    The length of each request is known: it feeds one position per step until its last, and then
    frees its pages. So the most is held just before one of them ends. A request that is still fed
    its prompt, or that has later windows, is counted as if it never ended.
    """
    if not demands:
        return 0
    rows, known, held, needed, text, left = np.array(demands, np.int64).T
    steps = np.unique(left)[:, None]
    positions = np.maximum(held, np.minimum(known + steps - 1, needed))
    pages = rows * count_pages(positions) + count_pages(text)
    return int((pages * (left >= steps)).sum(1).max())


class PageTable:
    """The pages of each row, and the slots and pages that are free.

    Whoever extends a row must have checked by `count_peak_pages` that there will be a free page.
    """

    def __init__(self, slots: int, pages: int, positions: int, device: torch.device) -> None:
        self.slots, self.number = slots, pages
        self.limit = pages
        """The pages that requests may hold together; fewer for a while after memory ran out."""
        self._withheld_steps, self._recovery = 0, RECOVERY_STEPS
        self._free_slots, self._free = list(range(slots)), list(reversed(range(pages)))
        self._held: list[list[int]] = [[] for _ in range(ROWS * slots)]
        self.written = torch.zeros(ROWS * slots, count_pages(positions), dtype=torch.int32)
        """The page numbers of each row, int32 [row, page], in the host's memory."""
        self.table = self.written.to(device)
        """The page numbers that the kernels read; `upload` brings them up to date."""
        self._changed = False

    @property
    def has_free_slot(self) -> bool:
        """Whether a request could start if it found pages."""
        return bool(self._free_slots)

    @property
    def used(self) -> int:
        """The number of pages that rows hold; any thread may read it."""
        return self.number - len(self._free)

    def take_slot(self) -> int:
        """Allocate the lowest free slot."""
        return heapq.heappop(self._free_slots)

    def extend_row(self, slot: int, row: int, positions: int) -> None:
        """Let a row of a slot hold at least so many positions."""
        at = ROWS * slot + row
        held = self._held[at]
        while len(held) * PAGE < positions:
            self.written[at, len(held)] = page = self._free.pop()
            held.append(page)
            self._changed = True

    def free_slot(self, slot: int) -> None:
        """Free a slot and all of its pages."""
        assert slot not in self._free_slots, f"slot {slot} was freed twice"
        for row in range(ROWS):
            self.free_row(slot, row)
        heapq.heappush(self._free_slots, slot)

    def free_row(self, slot: int, row: int) -> None:
        """Free the pages of one row of a slot."""
        held = self._held[ROWS * slot + row]
        self._free += held
        held.clear()

    def shrink(self, pages: int) -> None:
        """Let requests hold only so many pages together, until `count_step` ends it."""
        self.limit, self._withheld_steps = pages, self._recovery
        self._recovery = min(2 * self._recovery, LONGEST_RECOVERY)

    def count_step(self) -> None:
        """Count a step for which memory sufficed; after enough of them all pages are used again."""
        self._withheld_steps -= 1
        if self._withheld_steps == 0:
            self.limit = self.number

    def upload(self) -> None:
        """Copy the page numbers to the device if they have changed; on a CPU they are shared."""
        if self._changed and self.table is not self.written:
            self.table.copy_(self.written)
        self._changed = False

    def check_idle(self) -> None:
        """Assert that all slots and pages are free; call it while no request is running."""
        assert sorted(self._free) == list(range(self.number)), f"{self.used} pages were lost"
        assert len(self._free_slots) == self.slots, "a slot was lost"
