"""Describes what the replicas of a model can do at once, and estimates how long requests wait."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

ASSUMED_SPEED = 2.0
"""The speed of a slot of a model that has reported none: real time, with guidance."""
SLOWEST = 0.01
"""The lowest speed that is used."""


@dataclass(frozen=True)
class Capacity:
    """What all replicas of one model have reported, summed."""

    slots: int = 0
    """Clips that start immediately at any speed; 0 for models without slots, or if not known."""
    speed: float | None = None
    """Work per second with all slots taken, in the unit of the model's price; None: not known."""

    @property
    def usable_speed(self) -> float:
        """The speed to compute with."""
        assumed = ASSUMED_SPEED * max(self.slots, 1)
        return max(assumed if self.speed is None else self.speed, SLOWEST)


class CapacityReports:
    """The latest capacity of each model; the routers of this process write it."""

    def __init__(self) -> None:
        self._known: dict[str, Capacity] = {}

    def set_capacity(self, model: str, capacity: Capacity) -> None:
        """Replace the capacity of a model."""
        self._known[model] = capacity

    def get_capacity(self, model: str) -> Capacity:
        """Return the capacity of a model; an unknown one where no replica has reported."""
        return self._known.get(model, Capacity())


REPORTS = CapacityReports()
"""The capacities that this process knows. Serve creates the routers, so they share this object."""


def estimate_wait(work: Iterable[tuple[float, int]], capacity: Capacity) -> float:
    """Return the seconds until a slot is free after all this work has begun.

    Each item is an amount of work and the clips that share it. A clip runs at its slot's part of
    the speed. Models without slots end all of the work first.
    """
    speed = capacity.usable_speed
    if not capacity.slots:
        return sum(amount for amount, _ in work) / speed
    free_at = [0.0] * capacity.slots
    for amount, clips in work:
        seconds = amount / clips / (speed / capacity.slots)
        for _ in range(clips):
            heapq.heapreplace(free_at, free_at[0] + seconds)
    return free_at[0]
