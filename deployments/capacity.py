"""Describes what the replicas of a model can do at once, and estimates how long requests wait."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Patience:
    """How long a request may wait for its model, and what the model's replicas have reported."""

    max_wait_s: float
    capacity: Capacity = field(default_factory=Capacity)


_reported: dict[str, Capacity] = {}
"""The latest capacity of each model in this process."""


def note_reports(model: str, reports: Sequence[Mapping[str, float]]) -> None:
    """Note what the replicas of a model report; those without a speed count as others do.

    Serve pickles routers with their module's objects, so a router must not hold the capacities: it
    calls this function, which is pickled by its name.
    """
    speeds = [report["speed"] for report in reports if report.get("speed")]
    speed = sum(speeds) / len(speeds) * len(reports) if speeds else None
    _reported[model] = Capacity(int(sum(report.get("slots", 0) for report in reports)), speed)


def get_capacity(model: str) -> Capacity:
    """Return the capacity of a model; an unknown one where no replica has reported."""
    return _reported.get(model, Capacity())


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
