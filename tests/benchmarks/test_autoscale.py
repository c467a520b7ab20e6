"""Tests the simulated fleet, and that our autoscaling policy meets its targets."""

import numpy as np
import pytest

from benchmarks import autoscale_sim
from benchmarks.autoscale.fleet import Fleet, FleetState, Machine
from benchmarks.autoscale.traces import FAMILIES, Trace, draw_traces

MACHINE = Machine(slots=2, alone_s=0.02, full_s=0.04, start_s=10.0)


def build_trace(*requests: tuple[float, float], ends: float = 60.0) -> Trace:
    at, seconds = zip(*requests, strict=True)
    return Trace("made", np.array(at), np.array(seconds), ends)


def replay_plan(requests: Trace, *plan: tuple[float, int], replicas: int = 1):
    """Replay a trace under a plan of (time, replicas from then on)."""

    def follow_plan(state: FleetState) -> int:
        return [number for at, number in [(0.0, replicas), *plan] if at <= state.now][-1]

    return Fleet(MACHINE, requests, follow_plan).run(replicas)


def test_requests_of_a_batch_share_its_steps():
    """1 s of audio takes 1 s alone, and 2 s while two requests share steps."""
    outcome = replay_plan(build_trace((0, 2), (1, 1), (1.5, 1)))
    # The first has half of its steps left when the second comes; both then end at 3.
    assert outcome.waits == pytest.approx([0, 0, 1.5])


def test_who_waits_starts_when_a_replica_is_up():
    outcome = replay_plan(build_trace((0, 30), (0, 30), (5, 1)), (3, 2))
    assert outcome.waits == pytest.approx([0, 0, 8])


def test_a_replica_that_goes_ends_what_it_has_begun_and_costs_until_then():
    outcome = replay_plan(build_trace((0, 10), (0, 10), ends=30), (2, 1), replicas=2)
    assert outcome.waits == pytest.approx([0, 0])
    assert outcome.gpu_hours * 3600 == pytest.approx(30 + 10)


def test_one_that_starts_costs_from_the_decision_on():
    outcome = replay_plan(build_trace((0, 1), ends=30), (10, 2), (15, 1))
    assert outcome.gpu_hours * 3600 == pytest.approx(30 + 5)
    assert [total for at, _, total, _ in outcome.history if at == 12] == [2]


def test_a_queue_is_worked_off_after_the_end():
    outcome = replay_plan(build_trace(*[(59.0, 5.0)] * 10))
    assert len(outcome.waits) == 10
    assert outcome.waits[-1] == pytest.approx(40)


@pytest.mark.parametrize("family", FAMILIES)
def test_traces_are_drawn_by_their_seeds(family: str):
    first, again, other = draw_traces(family, [1, 1, 2], (1.0, 1.0))
    assert np.array_equal(first.at, again.at)
    assert len(first.at) != len(other.at)
    assert np.all(np.diff(first.at) >= 0)
    assert first.at[-1] <= first.ends


@pytest.mark.parametrize("family", ["steady", "burst"])
def test_the_policy_is_as_good_as_it_is_to_be(family: str):
    """The targets are met for a small fleet and a seed that was not used for tuning."""
    (drawn_trace,) = draw_traces(family, [200], (10.0, 10.0))
    names = ("oracle", autoscale_sim.BASELINE, "ours")
    policies = {name: autoscale_sim.POLICIES[name] for name in names}
    outcomes = autoscale_sim.replay_traces([drawn_trace], policies)
    assert autoscale_sim.meets_targets(
        {name: autoscale_sim.summarise_outcomes(o) for name, o in outcomes.items()}
    )
