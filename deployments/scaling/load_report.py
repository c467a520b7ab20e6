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
SLOPE = 0.03
"""The assumed time of each further row-position in a step, relative to that of an empty step. On
two cores the musicgen-small shape has 0.034 (16 requests take 87 ms and one 43, in bfloat16)."""
AUDIO_SPEED = 10.0
"""The assumed speed of a batched model in seconds of audio per second before the first batch."""


class RecentMean:
    """A moving mean in which later values weigh more."""

    def __init__(self, assumed: float) -> None:
        self.value, self.known = assumed, False

    def add_value(self, value: float) -> None:
        """Add a value; the first one replaces the assumed value."""
        weight = OLD_WEIGHT if self.known else 0.0
        self.value, self.known = weight * self.value + (1 - weight) * value, True


def round_speed(speed: float) -> float:
    """Round a speed to two digits, so that small changes are not sent to every ingress."""
    return float(f"{speed:.2g}")


class StepSeconds:
    """Predicts the seconds of a step from the row-positions that it feeds, by a fitted line.

    Older measurements lose weight. The slope is assumed until steps of several sizes were measured.
    """

    def __init__(self) -> None:
        self.known = False
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def add_steps(self, steps: int, row_positions: float, seconds: float) -> None:
        """Add so many steps of the same mean size and time."""
        kept = OLD_WEIGHT if self.known else 0.0
        x, y = row_positions / steps, seconds / steps
        values = 1.0, x, y, x * x, x * y
        sums = self._weight, self._x, self._y, self._xx, self._xy
        new = [kept * old + (1 - kept) * value for old, value in zip(sums, values, strict=True)]
        self._weight, self._x, self._y, self._xx, self._xy = new
        self.known = True

    def predict_seconds(self, row_positions: float) -> float:
        """Return the seconds of a step that feeds so many row-positions."""
        if not self.known:
            return STEP_S
        x, y = self._x / self._weight, self._y / self._weight
        spread, covariance = self._xx / self._weight - x * x, self._xy / self._weight - x * y
        assumed = SLOPE * y / (1 + SLOPE * x)
        slope = (covariance + assumed) / (spread + 1.0)
        slope = min(max(slope, 0.0), y / max(x, 1.0))
        return y + slope * (row_positions - x)


class TokenModelLoad:
    """Measures the load of a token model from its steps and its requests."""

    def __init__(self, frame_rate: float) -> None:
        self._frame_rate = frame_rate
        self._step_s, self._rows = StepSeconds(), RecentMean(ROWS)
        self._request = RecentMean(ROWS * REQUEST_S)
        self._pages = RecentMean(0.0)
        self._steps, self._seconds, self._row_positions = 0, 0.0, 0

    def add_request(self, row_positions: int) -> None:
        """Add a request of so many rows times positions."""
        self._request.add_value(row_positions / self._frame_rate)

    def measure_steps(self, load: "Load") -> None:
        """Add the steps since the last call."""
        seconds = load.steps * load.step_ms / 1000
        if load.steps > self._steps:
            fed = load.row_positions - self._row_positions
            self._step_s.add_steps(load.steps - self._steps, fed, seconds - self._seconds)
            self._steps, self._seconds = load.steps, seconds
            self._row_positions = load.row_positions
        if load.running:
            self._rows.add_value(load.rows / load.running)
            self._pages.add_value((load.pages - load.free_pages) / load.running)

    def count_slots(self, slots: int, pages: int) -> int:
        """Return how many requests like the recent ones can run together, at most `slots`.

        A request holds more pages with each step, so what it needs is the mean over those that run.
        """
        each = self._pages.value
        return max(min(slots, int(pages / each)), 1) if each else slots

    def compute_speed(self, load: "Load") -> float:
        """Return the row-seconds per second with all slots taken."""
        rows = load.slots * self._rows.value
        return rows / (self._step_s.predict_seconds(rows) * self._frame_rate)

    def build_capacity(self, load: "Load") -> dict[str, float]:
        """Return the slots, and the speed once it was measured."""
        speed = {"speed": round_speed(self.compute_speed(load))} if self._step_s.known else {}
        return {"slots": load.slots} | speed

    def build_report(self, load: "Load") -> Report:
        """Return the report of a replica with this load."""
        self.measure_steps(load)
        return Report(
            occupied=min(load.running / load.slots, 1.0),
            queued=load.queued_row_seconds,
            speed=self.compute_speed(load),
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

    def build_capacity(self) -> dict[str, float]:
        """Return the speed to two digits, or nothing before the first batch."""
        return {"speed": round_speed(self._speed.value)} if self._speed.known else {}

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
