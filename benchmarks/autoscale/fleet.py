"""Simulates a fleet of replicas without models; requests share decode steps as in the engine."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from benchmarks.autoscale.traces import Trace

FRAME_RATE = 50.0
TICK_S = 1.0


@dataclass(frozen=True)
class Machine:
    """The size and speed of a replica."""

    slots: int = 32
    alone_s: float = 0.02
    """Seconds per step with one request."""
    full_s: float = 0.04
    """Seconds per step with all slots in use; in between, the time grows linearly."""
    start_s: float = 20.0
    """Seconds from the decision to start a replica until it takes requests."""

    def step_s(self, running: int) -> float:
        """Return the seconds per step with so many running requests."""
        return self.alone_s + (self.full_s - self.alone_s) * (running - 1) / (self.slots - 1)


@dataclass(frozen=True)
class FleetState:
    """The state of the fleet that a policy decides by, once per second."""

    now: float
    running: Sequence[int]
    """Running requests of each active replica."""
    waiting: int
    target: int
    """The number of replicas that are up or starting."""
    seconds: float
    """Mean duration of the clips requested so far, in seconds."""


Policy = Callable[[FleetState], int]


class Replica:
    """A replica whose requests end after a number of steps; steps slow down with more requests."""

    def __init__(self, machine: Machine, now: float) -> None:
        self._machine = machine
        self._steps, self._at = 0.0, now
        self.ends: list[float] = []
        self.version = 0
        """Increases with each change, which makes earlier heap entries invalid."""
        self.stays = True

    def _advance_steps(self, now: float) -> None:
        if self.ends:
            self._steps += (now - self._at) / self._machine.step_s(len(self.ends))
        self._at = now
        self.version += 1

    def begin_request(self, now: float, seconds: float) -> None:
        """Start a request for so many seconds of audio."""
        self._advance_steps(now)
        heapq.heappush(self.ends, self._steps + seconds * FRAME_RATE)

    def end_request(self, now: float) -> None:
        """End the request that is due next."""
        self._advance_steps(now)
        heapq.heappop(self.ends)

    @property
    def due(self) -> float:
        """The time at which the next request ends."""
        if not self.ends:
            return math.inf
        return self._at + (self.ends[0] - self._steps) * self._machine.step_s(len(self.ends))


Planned = tuple[float, int, int, Replica]
"""A heap entry: sort key, tiebreak, version, replica; invalid once the version has changed."""


@dataclass
class Outcome:
    """The result of replaying a trace."""

    waits: NDArray[np.float64]
    """Seconds from arrival to a slot, for each request."""
    gpu_hours: float
    """Hours summed over replicas, from the decision to start until the last request ended."""
    history: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Per second: time, replicas up, all replicas, waiting requests."""


class Fleet:
    """Replays a trace under a policy; one queue feeds the replica with the fewest requests."""

    def __init__(self, machine: Machine, trace: Trace, policy: Policy) -> None:
        self._machine, self._trace, self._policy = machine, trace, policy
        self._now, self._target = 0.0, 0
        self._up: list[Replica] = []
        self._leaving: list[Replica] = []
        self._starting: deque[float] = deque()
        self._queue: deque[tuple[float, float]] = deque()
        self._plan: list[Planned] = []
        """A heap of replicas by the time at which their next request ends."""
        self._room: list[Planned] = []
        """A heap of active replicas by their number of requests."""
        self._tiebreak = count()
        self._waits: list[float] = []
        self._gpu_s = 0.0

    def run(self, replicas: int) -> Outcome:
        """Replay the trace, beginning with so many replicas."""
        self._target = replicas
        for _ in range(replicas):
            self._add_replica()
        history, tick, arrived = [], 0.0, 0
        at = [*self._trace.at.tolist(), math.inf]
        seconds = self._trace.seconds.tolist()
        known = np.cumsum(self._trace.seconds)
        while tick <= self._trace.ends or self._queue:
            ends, starts = self._next_end(), self._starting[0] if self._starting else math.inf
            self._pass_until(min(at[arrived], ends, starts, tick))
            if self._now == ends:
                self._end_request()
            elif self._now == at[arrived]:
                self._queue.append((self._now, seconds[arrived]))
                arrived += 1
            elif self._now == starts:
                self._starting.popleft()
                self._add_replica()
            else:
                mean = float(known[arrived - 1] / arrived) if arrived else 0.0
                self._apply_policy(mean)
                total = self._replicas
                history.append((self._now, len(self._up), total, len(self._queue)))
                tick += TICK_S
            self._assign_requests()
        return Outcome(np.array(self._waits), self._gpu_s / 3600, history)

    @property
    def _replicas(self) -> int:
        return len(self._up) + len(self._leaving) + len(self._starting)

    def _pass_until(self, now: float) -> None:
        self._gpu_s += (now - self._now) * self._replicas
        self._now = now

    def _add_replica(self) -> None:
        replica = Replica(self._machine, self._now)
        self._up.append(replica)
        self._plan_for(replica)

    def _next_end(self) -> float:
        first = _find_first_valid(self._plan)
        return first[0] if first else math.inf

    def _plan_for(self, replica: Replica) -> None:
        if replica.ends:
            entry = replica.due, next(self._tiebreak), replica.version, replica
            heapq.heappush(self._plan, entry)
        if replica.stays:
            room = len(replica.ends), next(self._tiebreak), replica.version, replica
            heapq.heappush(self._room, room)

    def _end_request(self) -> None:
        replica = heapq.heappop(self._plan)[3]
        replica.end_request(self._now)
        if not replica.stays and not replica.ends:
            self._leaving.remove(replica)
        self._plan_for(replica)

    def _assign_requests(self) -> None:
        while self._queue and (emptiest := _find_first_valid(self._room)):
            if emptiest[0] == self._machine.slots:
                return
            came, seconds = self._queue.popleft()
            replica = emptiest[3]
            replica.begin_request(self._now, seconds)
            self._waits.append(self._now - came)
            self._plan_for(replica)

    def _apply_policy(self, mean_seconds: float) -> None:
        running = [len(one.ends) for one in self._up]
        state = FleetState(self._now, running, len(self._queue), self._target, mean_seconds)
        wanted = self._policy(state)
        for _ in range(wanted - self._target):
            self._starting.append(self._now + self._machine.start_s)
        for _ in range(self._target - wanted):
            if self._starting:
                self._starting.pop()
            elif emptiest := _find_first_valid(self._room):
                self._retire_replica(emptiest[3])
        self._target = wanted

    def _retire_replica(self, replica: Replica) -> None:
        replica.stays = False
        heapq.heappop(self._room)
        self._up.remove(replica)
        if replica.ends:
            self._leaving.append(replica)


def _find_first_valid(planned: list[Planned]) -> Planned | None:
    """Remove invalid entries from a heap; return its first valid entry, or None."""
    while planned and planned[0][2] != planned[0][3].version:
        heapq.heappop(planned)
    return planned[0] if planned else None
