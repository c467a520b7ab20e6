"""The owner of slots: who has which, and that they add up."""

import heapq


class Slots:
    """A fixed number of places, numbered from 0; the lowest free one is given first."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = list(range(number))

    @property
    def available(self) -> int:
        """How many are free."""
        return len(self._free)

    def take(self) -> int:
        """Return the lowest free slot; there must be one."""
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """Free a slot that was taken."""
        assert slot not in self._free, f"slot {slot} was given back twice"
        heapq.heappush(self._free, slot)

    def check_idle(self) -> None:
        """Assert, while nothing runs, that every slot is free."""
        assert sorted(self._free) == list(range(self.number)), f"slots lost: {self._free}"
