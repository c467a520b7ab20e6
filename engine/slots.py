"""Allocates the numbered slots of an engine."""

import heapq


class Slots:
    """A pool of slots, numbered from 0; the lowest free slot is allocated first."""

    def __init__(self, number: int) -> None:
        self._all = set(range(number))
        self._free = list(range(number))

    @property
    def number(self) -> int:
        """The number of slots in the pool, free or taken."""
        return len(self._all)

    @property
    def available(self) -> int:
        """The number of free slots."""
        return len(self._free)

    def take_slot(self) -> int:
        """Allocate the lowest free slot; the caller must have checked that one is free."""
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """Return a slot to the pool."""
        assert slot in self._all, f"slot {slot} does not exist"
        assert slot not in self._free, f"slot {slot} was given back twice"
        heapq.heappush(self._free, slot)

    def retire_slot(self) -> None:
        """Remove one free slot from the pool for good, unless it is the only slot."""
        if self.number > 1:
            slot = max(self._free)
            self._free.remove(slot)
            heapq.heapify(self._free)
            self._all.remove(slot)

    def check_idle(self) -> None:
        """Assert that every slot is free; call it while no request is running."""
        assert set(self._free) == self._all, f"slots lost: {self._all - set(self._free)}"
