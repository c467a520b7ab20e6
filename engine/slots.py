"""The owner of slots: who has which, and that they add up."""

import heapq


class Slots:
    """Places, numbered from 0; the lowest free one is given first."""

    def __init__(self, number: int) -> None:
        self._all = set(range(number))
        self._free = list(range(number))

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self._all)

    @property
    def available(self) -> int:
        """How many are free."""
        return len(self._free)

    def take(self) -> int:
        """Return the lowest free slot; there must be one."""
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """Free a slot that was taken."""
        assert slot in self._all, f"slot {slot} is none"
        assert slot not in self._free, f"slot {slot} was given back twice"
        heapq.heappush(self._free, slot)

    def retire(self) -> None:
        """Give one of the free slots no more, unless it is the last of all."""
        if self.number > 1:
            slot = max(self._free)
            self._free.remove(slot)
            heapq.heapify(self._free)
            self._all.remove(slot)

    def check_idle(self) -> None:
        """Assert, while nothing runs, that every slot is free."""
        assert set(self._free) == self._all, f"slots lost: {self._all - set(self._free)}"
