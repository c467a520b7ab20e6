"""Measures the speed of a replica and the work of its requests for its autoscaling reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployments.scaling.policy import Report

if TYPE_CHECKING:
    from engine.params import Load

OLD_WEIGHT = 0.8
"""The weight of the old mean when a new value is added."""
ROWS = 2.0
"""The assumed rows of a request before the first one: two, as with guidance."""
STEP_S, REQUEST_S = 0.02, 10.0
"""The assumed seconds of a step (real time at 50 frames per second) and of a request's audio."""
AUDIO_SPEED = 10.0
"""The assumed speed of a batched model in seconds of audio per second before the first batch."""


class RecentMean:
    """A moving mean in which later values weigh more."""

    def __init__(self, assumed: float) -> None:
        self.value, self._known = assumed, False

    def add_value(self, value: float) -> None:
        """Add a value; the first one replaces the assumed value."""
        weight = OLD_WEIGHT if self._known else 0.0
        self.value, self._known = weight * self.value + (1 - weight) * value, True


class TokenModelLoad:
    """Measures the load of a token model from its steps and its requests."""

    def __init__(self, frame_rate: float) -> None:
        self._frame_rate = frame_rate
        self._step_s, self._rows = RecentMean(STEP_S), RecentMean(ROWS)
        self._request = RecentMean(ROWS * REQUEST_S)
        self._steps, self._seconds = 0, 0.0

    def add_request(self, rows_by_frames: int) -> None:
        """Add a request of so many rows times frames."""
        self._request.add_value(rows_by_frames / self._frame_rate)

    def build_report(self, load: "Load") -> Report:
        """Return the report of a replica with this load."""
        seconds = load.steps * load.step_ms / 1000
        if load.steps > self._steps:
            self._step_s.add_value((seconds - self._seconds) / (load.steps - self._steps))
            self._steps, self._seconds = load.steps, seconds
        if load.running:
            self._rows.add_value(load.rows / load.running)
        rows = load.slots * self._rows.value
        return Report(
            occupied=load.running / load.slots,
            queued=load.queued_row_seconds,
            speed=rows / (self._step_s.value * self._frame_rate),
            request=self._request.value,
        )


class ProcessLoad:
    """Measures the load of a process with one event loop as its share of a CPU core."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock, self._cpu = clock, cpu
        self._at, self._spent = clock(), cpu()

    def build_report(self) -> Report:
        """Return the report of the time since the last report."""
        now, spent = self._clock(), self._cpu()
        share = (spent - self._spent) / max(now - self._at, 1e-6)
        self._at, self._spent = now, spent
        return Report(occupied=min(share, 1.0), queued=0.0, speed=1.0, request=0.0)


class BatchedModelLoad:
    """Measures the load of a model that runs one batch at a time, in seconds of audio."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._speed, self._request = RecentMean(AUDIO_SPEED), RecentMean(REQUEST_S)
        self._outstanding = self._in_work = 0.0
        self._busy_s, self._began = 0.0, 0.0
        self._reported_at, self._reported_busy_s = clock(), 0.0

    @contextmanager
    def count_request(self, seconds: float) -> Iterator[None]:
        """Count a request of so many seconds of audio as outstanding during the block."""
        self._request.add_value(seconds)
        self._outstanding += seconds
        try:
            yield
        finally:
            self._outstanding -= seconds

    @contextmanager
    def time_batch(self, seconds: float) -> Iterator[None]:
        """Measure the time of a batch of so many seconds of audio, which runs in the block."""
        self._began, self._in_work = self._clock(), seconds
        try:
            yield
        finally:
            took = max(self._clock() - self._began, 1e-6)
            self._in_work = 0.0
            self._busy_s += took
            self._speed.add_value(seconds / took)

    def build_report(self) -> Report:
        """Return the report, with the share of busy time since the last report."""
        now = self._clock()
        busy_s = self._busy_s + (now - self._began if self._in_work else 0.0)
        share = (busy_s - self._reported_busy_s) / max(now - self._reported_at, 1e-6)
        self._reported_at, self._reported_busy_s = now, busy_s
        return Report(
            occupied=min(max(share, 0.0), 1.0),
            queued=max(self._outstanding - self._in_work, 0.0),
            speed=self._speed.value,
            request=self._request.value,
        )
