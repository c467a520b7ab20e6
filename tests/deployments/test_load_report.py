"""Tests the load reports of replicas."""

from contextlib import suppress
from dataclasses import replace

import pytest

from deployments.scaling.load_report import (
    AUDIO_SPEED,
    BatchedModelLoad,
    ProcessLoad,
    TokenModelLoad,
)
from engine.params import Load

NOTHING = Load(0, 0, 0, 32, 0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_the_speed_of_a_token_model_counts_all_slots():
    load = TokenModelLoad(50.0)
    assert load.build_report(NOTHING).speed == pytest.approx(32 * 2), (
        "real time before the first step"
    )
    some = replace(NOTHING, running=8, rows=8, steps=100, step_ms=10.0, queued_row_seconds=7.0)
    report = load.build_report(some)
    assert report.speed == pytest.approx(32 * 1 / (0.010 * 50))
    assert (report.occupied, report.queued) == (0.25, 7.0)
    slower = replace(some, steps=200, step_ms=15.0)  # the second hundred took 20 ms each
    assert load.build_report(slower).speed == pytest.approx(32 / (0.012 * 50))


def test_the_work_of_a_request_is_a_recent_mean():
    load = TokenModelLoad(50.0)
    for _ in range(2):
        load.add_request(2 * 250)
    assert load.build_report(NOTHING).request == pytest.approx(10.0)
    for _ in range(30):
        load.add_request(2 * 500)
    assert load.build_report(NOTHING).request == pytest.approx(20.0, rel=0.01)


def test_a_batched_model_reports_busy_time_and_queue():
    clock = Clock()
    load = BatchedModelLoad(clock)
    assert load.build_report().speed == AUDIO_SPEED
    with load.count_request(30), load.count_request(10):
        with load.time_batch(30):
            clock.now += 2
            assert load.build_report().occupied == 1, "a long batch counts while it runs"
            assert load.build_report().queued == 10
            clock.now += 1
        clock.now += 3
        report = load.build_report()
        assert report.occupied == pytest.approx(1 / 4)
        assert report.queued == 40
        assert report.speed == pytest.approx(10)
    assert load.build_report().queued == 0
    clock.now += 1
    assert load.build_report().occupied == 0


def test_a_failed_batch_counts_as_busy_time():
    clock = Clock()
    load = BatchedModelLoad(clock)
    with suppress(ValueError), load.count_request(5), load.time_batch(5):
        clock.now += 1
        raise ValueError
    report = load.build_report()
    assert (report.occupied, report.queued, report.speed) == (1.0, 0.0, 5.0)


def test_a_process_reports_its_share_of_a_core():
    clock, cpu = Clock(), Clock()
    load = ProcessLoad(clock, cpu)
    clock.now += 4
    cpu.now += 1
    assert load.build_report().occupied == pytest.approx(0.25)
    clock.now += 1
    cpu.now += 3
    assert load.build_report().occupied == 1.0
