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


def run_steps(load: TokenModelLoad, total: Load, running: int, steps: int = 100) -> Load:
    """Return a load after steps of 10 ms and half a millisecond for each row-position."""
    rows = 2 * running
    seconds = total.steps * total.step_ms / 1000 + steps * (0.010 + 0.0005 * rows)
    after = replace(
        total, running=running, rows=rows, steps=total.steps + steps,
        step_ms=1000 * seconds / (total.steps + steps),
        row_positions=total.row_positions + steps * rows,
    )  # fmt: skip
    load.measure_steps(after)
    return after


FULL = 64 / (0.010 + 0.0005 * 64) / 50
"""The row-seconds per second of 32 such requests."""


def test_the_speed_of_a_token_model_is_that_of_all_slots():
    load, total = TokenModelLoad(50.0), NOTHING
    assert load.build_capacity(NOTHING) == {"slots": 32}
    for number in range(40):
        total = run_steps(load, total, running=(4, 16, 32)[number % 3])
    assert load.build_report(total).speed == pytest.approx(FULL, rel=0.05)
    assert load.build_capacity(total) == {"slots": 32, "speed": pytest.approx(FULL, rel=0.05)}


def test_as_many_run_as_the_pages_let():
    """Four requests that hold 25 of 200 pages each leave room for as many again."""
    load, cache = TokenModelLoad(50.0), replace(NOTHING, pages=200, free_pages=200)
    load.measure_steps(cache)
    assert load.count_slots(32, 200) == 32, "nothing is known yet"
    for _ in range(30):
        load.measure_steps(replace(cache, running=4, rows=8, free_pages=100))
    assert load.count_slots(32, 200) == 8
    assert load.count_slots(6, 200) == 6
    assert load.count_slots(32, 100) == 4, "the pool shrank"


@pytest.mark.parametrize("running", [1, 2, 8])
def test_few_requests_do_not_make_a_model_seem_slow_or_fast(running: int):
    """Today's mean of a step would say that 32 requests take as long as one."""
    load, total = TokenModelLoad(50.0), NOTHING
    for _ in range(20):
        total = run_steps(load, total, running)
    assert FULL / 1.5 < load.build_report(total).speed < 1.5 * FULL


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
