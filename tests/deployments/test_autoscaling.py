"""How many replicas: enough for the work, at once; and what is not known changes nothing."""

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


def context(target: int, *reports: Report, waiting: float = 0.0, **more: Any) -> AutoscalingContext:
    names = ("occupied", "queued", "speed", "request")
    metrics = {n: {str(i): getattr(r, n) for i, r in enumerate(reports)} for n in names}
    config = AutoscalingConfig(**Autoscaling(min_replicas=0, max_replicas=100).build_options())
    given = {"aggregated_metrics": metrics if reports else {}, "total_queued_requests": waiting}
    return policies.context(config, target, target, **given | more)


def policy(clock: Clock) -> Backlog:
    return Backlog(clock, **TARGETS.__dict__ | {"occupancy": 0.9})


def test_places_that_are_taken_and_a_few_more():
    assert compute_needed_replicas([FULL] * 9, 0, TARGETS) == pytest.approx(10)
    assert compute_needed_replicas([IDLE] * 9, 0, TARGETS) == 0
    assert compute_needed_replicas([], 5, TARGETS) == 0


def test_what_waits_is_to_start_in_time():
    """640 row-seconds wait where one replica does 64 a second: one more, and as much again for
    those that no replica has yet.
    """
    waiting = Report(0.9, 640.0, 64.0, 20.0)
    assert compute_needed_replicas([waiting], 0, TARGETS) == pytest.approx(2)
    assert compute_needed_replicas([waiting], 32, TARGETS) == pytest.approx(3)


def test_what_was_needed_is_kept_for_a_while():
    recent = RecentNeeds([], 0)
    needs = [(0, 3.2), (10, 7.5), (20, 5.0), (65, 1.0), (71, 1.0), (81, 1.0)]
    assert [decide_replicas(recent, at, n, TARGETS) for at, n in needs] == [4, 8, 8, 8, 5, 1]


def test_the_last_goes_after_a_longer_while():
    recent = RecentNeeds([], 0)
    assert decide_replicas(recent, 0, 0.5, TARGETS) == 1
    assert decide_replicas(recent, 299, 0.0, TARGETS) == 1
    assert decide_replicas(recent, 301, 0.0, TARGETS) == 0
    assert decide_replicas(recent, 302, 0.5, TARGETS) == 1


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 50)), min_size=1, max_size=60))
def test_it_is_what_the_whole_past_would_say(steps: list[tuple[float, float]]):
    recent, now, past = RecentNeeds([], 0), 0.0, []
    for passed, replicas in steps:
        now += passed
        past.append((now, replicas))
        most = max(n for at, n in past if at > now - TARGETS.patience_s or at == now)
        assert recent.add_need(now, replicas, TARGETS.patience_s) == most
        assert len(recent.needs) <= len(past)


def test_serve_takes_its_decision_at_once(clock: Clock):
    """By Serve's own wrapper, which would otherwise wait for 30 s up and for 600 s down."""
    decide = _apply_autoscaling_config(policy(clock))
    ctx = context(2, FULL, FULL, waiting=64)
    assert decide(ctx)[0] == math.ceil(2 / 0.9 + 64 * 20 / 640)
    clock.now += 61
    assert decide(context(5, *[IDLE] * 5))[0] == 1
    clock.now += 301
    assert decide(context(1, IDLE))[0] == 0
    assert decide(context(0, waiting=1, total_num_requests=1.0))[0] == 1


def test_one_that_a_request_has_woken_does_not_go_at_once(clock: Clock):
    decide = policy(clock)
    assert decide(context(0))[0] == 0
    clock.now += 10_000
    assert decide(context(1))[0] == 1, "it has said nothing yet"
    clock.now += 299
    assert decide(context(1, IDLE))[0] == 1
    clock.now += 2
    assert decide(context(1, IDLE))[0] == 0


def test_a_controller_that_has_just_begun_takes_nothing_away(clock: Clock):
    decide = policy(clock)
    assert decide(context(8, *[IDLE] * 8))[0] == 8
    clock.now += 59
    assert decide(context(8, *[IDLE] * 8))[0] == 8
    clock.now += 2
    assert decide(context(8, *[IDLE] * 8))[0] == 1


def test_one_at_zero_starts_nothing_unasked(clock: Clock):
    assert policy(clock)(context(0))[0] == 0


def test_where_no_replica_says_anything_all_stays(clock: Clock):
    decide = policy(clock)
    clock.now += 1000
    assert decide(context(3))[0] == 3
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
    decide = policy(clock)
    assert decide(context(4, FULL, **broken))[0] == 4
    assert decide(context(1, Report(1.0, 1.0, 0.0, 1.0)))[0] == 1, "no speed"
    assert "cannot compute the number of replicas of music" in caplog.text


def test_the_clock_on_the_wall_may_jump(clock: Clock):
    decide = policy(clock)
    for jump in (0.0, 1e9, -1e9):
        assert decide(context(2, FULL, FULL, current_time=jump))[0] == 3
