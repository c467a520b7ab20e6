"""Tests that the policy starts enough replicas immediately, and keeps them without reports."""

import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from benchmarks.autoscale import policies
from deployments.scaling.policy import (
    Backlog,
    RecentNeeds,
    Report,
    ScalingTargets,
    collect_reports,
    compute_needed_replicas,
    decide_replicas,
)
from deployments.settings import Autoscaling

TARGETS = ScalingTargets(start_within_s=10, patience_s=60, idle_s=300)
FULL, IDLE = Report(1.0, 0.0, 64.0, 20.0), Report(0.0, 0.0, 64.0, 20.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def build_context(
    target: int, *reports: Report, waiting: float = 0.0, **more: Any
) -> AutoscalingContext:
    names = ("occupied", "queued", "speed", "request")
    metrics = {n: {str(i): getattr(r, n) for i, r in enumerate(reports)} for n in names}
    config = AutoscalingConfig(**Autoscaling(min_replicas=0, max_replicas=100).build_options())
    given = {"aggregated_metrics": metrics if reports else {}, "total_queued_requests": waiting}
    return policies.context(config, target, target, **given | more)


def build_policy(clock: Clock) -> Backlog:
    return Backlog(clock, **TARGETS.__dict__ | {"occupancy": 0.9})


def test_running_work_needs_its_replicas_and_a_reserve():
    assert compute_needed_replicas([FULL] * 9, 0, TARGETS) == pytest.approx(10)
    assert compute_needed_replicas([IDLE] * 9, 0, TARGETS) == 0
    assert compute_needed_replicas([], 5, TARGETS) == 0


def test_waiting_work_starts_in_time():
    """640 row-seconds wait for a replica with a speed of 64, so it needs one more; 32 requests
    without a replica need another one.
    """
    waiting = Report(0.9, 640.0, 64.0, 20.0)
    assert compute_needed_replicas([waiting], 0, TARGETS) == pytest.approx(2)
    assert compute_needed_replicas([waiting], 32, TARGETS) == pytest.approx(3)


def test_replicas_are_kept_for_the_patience():
    recent = RecentNeeds([], 0)
    needs = [(0, 3.2), (10, 7.5), (20, 5.0), (65, 1.0), (71, 1.0), (81, 1.0)]
    assert [decide_replicas(recent, at, n, TARGETS) for at, n in needs] == [4, 8, 8, 8, 5, 1]


def test_the_last_replica_is_removed_after_the_idle_time():
    recent = RecentNeeds([], 0)
    assert decide_replicas(recent, 0, 0.5, TARGETS) == 1
    assert decide_replicas(recent, 299, 0.0, TARGETS) == 1
    assert decide_replicas(recent, 301, 0.0, TARGETS) == 0
    assert decide_replicas(recent, 302, 0.5, TARGETS) == 1


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 50)), min_size=1, max_size=60))
def test_the_recent_needs_equal_the_whole_history(steps: list[tuple[float, float]]):
    recent, now, past = RecentNeeds([], 0), 0.0, []
    for passed, replicas in steps:
        now += passed
        past.append((now, replicas))
        most = max(n for at, n in past if at > now - TARGETS.patience_s or at == now)
        assert recent.add_need(now, replicas, TARGETS.patience_s) == most
        assert len(recent.needs) <= len(past)


def test_serve_applies_the_decision_immediately(clock: Clock):
    """Serve's wrapper by default waits 30 s before scaling up and 600 s before scaling down."""
    decide = _apply_autoscaling_config(build_policy(clock))
    ctx = build_context(2, FULL, FULL, waiting=64)
    assert decide(ctx)[0] == math.ceil(2 / 0.9 + 64 * 20 / 640)
    clock.now += 61
    assert decide(build_context(5, *[IDLE] * 5))[0] == 1
    clock.now += 301
    assert decide(build_context(1, IDLE))[0] == 0
    assert decide(build_context(0, waiting=1, total_num_requests=1.0))[0] == 1


def test_a_replica_that_a_request_started_is_kept(clock: Clock):
    decide = build_policy(clock)
    assert decide(build_context(0))[0] == 0
    clock.now += 10_000
    assert decide(build_context(1))[0] == 1, "the replica has not reported yet"
    clock.now += 299
    assert decide(build_context(1, IDLE))[0] == 1
    clock.now += 2
    assert decide(build_context(1, IDLE))[0] == 0


def test_a_new_controller_removes_nothing(clock: Clock):
    decide = build_policy(clock)
    assert decide(build_context(8, *[IDLE] * 8))[0] == 8
    clock.now += 59
    assert decide(build_context(8, *[IDLE] * 8))[0] == 8
    clock.now += 2
    assert decide(build_context(8, *[IDLE] * 8))[0] == 1


def test_zero_replicas_stay_zero_without_requests(clock: Clock):
    assert build_policy(clock)(build_context(0))[0] == 0


def test_nothing_changes_without_reports(clock: Clock):
    decide = build_policy(clock)
    clock.now += 1000
    assert decide(build_context(3))[0] == 3
    assert collect_reports({"occupied": {"a": 1.0, "b": 1.0}, "queued": {"a": 1.0}}) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"aggregated_metrics": {"occupied": {"a": "many"}}},
        {"aggregated_metrics": [1]},
        {"total_queued_requests": "x"},
    ],
)
def test_it_never_raises(clock: Clock, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]):
    caplog.set_level(logging.ERROR, "ray.serve")
    decide = build_policy(clock)
    assert decide(build_context(4, FULL, **broken))[0] == 4
    assert decide(build_context(1, Report(1.0, 1.0, 0.0, 1.0)))[0] == 1, "no speed"
    assert "cannot compute the number of replicas of music" in caplog.text


def test_jumps_of_the_wall_clock_change_nothing(clock: Clock):
    decide = build_policy(clock)
    for jump in (0.0, 1e9, -1e9):
        assert decide(build_context(2, FULL, FULL, current_time=jump))[0] == 3
