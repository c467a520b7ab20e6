"""What replicas say of their work."""

from contextlib import suppress
from dataclasses import replace

import pytest

from deployments.scaling.load_report import AUDIO_SPEED, BatchPace, Pace, ProcessPace
from engine.params import Load

NOTHING = Load(0, 0, 0, 32, 0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_a_language_models_speed_is_of_all_its_slots():
    pace = Pace(50.0)
    assert pace.report(NOTHING).speed == pytest.approx(32 * 2), "real time, until it has worked"
    some = replace(NOTHING, running=8, rows=8, steps=100, step_ms=10.0, queued_row_seconds=7.0)
    report = pace.report(some)
    assert report.speed == pytest.approx(32 * 1 / (0.010 * 50))
    assert (report.occupied, report.queued) == (0.25, 7.0)
    slower = replace(some, steps=200, step_ms=15.0)  # the second hundred took 20 ms each
    assert pace.report(slower).speed == pytest.approx(32 / (0.012 * 50))


def test_what_a_request_asks_for_is_as_they_were_lately():
    pace = Pace(50.0)
    for _ in range(2):
        pace.asked(2 * 250)
    assert pace.report(NOTHING).request == pytest.approx(10.0)
    for _ in range(30):
        pace.asked(2 * 500)
    assert pace.report(NOTHING).request == pytest.approx(20.0, rel=0.01)


def test_what_works_in_batches_tells_its_share_of_time_and_what_waits():
    clock = Clock()
    pace = BatchPace(clock)
    assert pace.report().speed == AUDIO_SPEED
    with pace.outstanding(30), pace.outstanding(10):
        with pace.working(30):
            clock.now += 2
            assert pace.report().occupied == 1, "a long batch counts while it runs"
            assert pace.report().queued == 10
            clock.now += 1
        clock.now += 3
        report = pace.report()
        assert report.occupied == pytest.approx(1 / 4)
        assert report.queued == 40
        assert report.speed == pytest.approx(10)
    assert pace.report().queued == 0
    clock.now += 1
    assert pace.report().occupied == 0


def test_what_fails_counts_as_time():
    clock = Clock()
    pace = BatchPace(clock)
    with suppress(ValueError), pace.outstanding(5), pace.working(5):
        clock.now += 1
        raise ValueError
    report = pace.report()
    assert (report.occupied, report.queued, report.speed) == (1.0, 0.0, 5.0)


def test_a_processs_share_of_a_core():
    clock, cpu = Clock(), Clock()
    pace = ProcessPace(clock, cpu)
    clock.now += 4
    cpu.now += 1
    assert pace.report().occupied == pytest.approx(0.25)
    clock.now += 1
    cpu.now += 3
    assert pace.report().occupied == 1.0
