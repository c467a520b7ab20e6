"""Tests that admission is fair between keys and correct about waiting times."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.accounts import LEASE_S, Accounts, Verdict
from deployments.capacity import ASSUMED_SPEED as SPEED
from deployments.capacity import Capacity, Patience
from deployments.ledger_state import Charge, Share

MAX_WAIT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Requester:
    """Sends numbered requests to the accounts for one ingress."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.accounts = Accounts(self.clock, self.clock)
        self.requests = 0
        self.patience = Patience(MAX_WAIT_S)

    def send_request(self, key: str | Share = "a", price: float = 4.0, ingress: str = "i"):
        share = key if isinstance(key, Share) else Share(key)
        self.requests += 1
        charge = Charge(share.name, share.weight, "music", price)
        return self.accounts.admit(ingress, str(self.requests), charge, share, self.patience)


@pytest.fixture
def requester() -> Requester:
    return Requester()


@pytest.mark.parametrize("price", [1, 1e6])
def test_an_idle_system_never_refuses(requester: Requester, price: float):
    for key in "abc":
        assert requester.send_request(key, price).admitted, "the first request of a key"
        requester.accounts.settle("i", str(requester.requests), 0.0)
    requester.clock.now += 7200
    assert requester.send_request("a", price).admitted


def test_a_busy_model_refuses_with_a_waiting_time(requester: Requester):
    """One key alone may fill half of what starts in time, so that another key finds room."""
    share = SPEED * MAX_WAIT_S / 2
    admitted = [requester.send_request().admitted for _ in range(8)]
    assert admitted == [True] * int(share / 4) + [False] * (8 - int(share / 4))
    requester.accounts = Accounts(requester.clock, requester.clock)
    while (verdict := requester.send_request()).admitted:
        pass
    assert verdict.refused_for == "busy"
    over = 4 * (int(share / 4) + 1) - share
    assert verdict.wait_s == math.ceil(over / SPEED)


def test_a_request_with_a_free_slot_is_admitted_at_any_speed(requester: Requester):
    requester.patience = Patience(MAX_WAIT_S, Capacity(slots=30, speed=0.1))
    admitted = [requester.send_request().admitted for _ in range(32)]
    assert admitted == [True] * 30 + [False] * 2, "the backlog is far above its limit"
    requester.patience = Patience(MAX_WAIT_S, Capacity(slots=1000))
    assert requester.send_request().admitted


def test_no_more_start_at_once_than_replicas_have_slots(requester: Requester):
    """Three slots: of 32 clips of 10 s, those that would begin late are refused."""
    requester.patience = Patience(60.0, Capacity(slots=3, speed=6.0))
    verdicts = [requester.send_request("a", 20) for _ in range(32)]
    assert [one.wait_s for one in verdicts[:3]] == [0, 0, 0]
    assert sum(one.admitted for one in verdicts) == 6.0 * 60 / 2 / 20, "half of 60 s"
    assert all(one.wait_s <= 60 for one in verdicts if one.admitted)


def test_a_wait_counts_what_is_left_of_running_work(requester: Requester):
    requester.patience = Patience(60.0, Capacity(slots=1, speed=1.0))
    assert requester.send_request("a", 100).admitted
    charge = Charge("a", 1.0, "music", 100.0)
    late = requester.send_request("b", 1)
    assert (late.refused_for, late.wait_s) == ("busy", 40)
    requester.accounts.renew_charges("i", {"1": replace(charge, row_seconds=20.0)})
    soon = requester.send_request("b", 1)
    assert (soon.admitted, soon.wait_s) == (True, 20)


def test_turns_are_by_weight_and_a_light_request_passes_a_long_queue(requester: Requester):
    """A key of weight 1 fills all slots and the queue; weight 3 then asks for a second."""
    requester.patience = Patience(600.0, Capacity(slots=32, speed=32.0))
    greedy = [requester.send_request("greedy", 120) for _ in range(64)]
    queued = [one.turn for one in greedy if one.admitted][32:]
    assert queued
    light = requester.send_request(Share("light", weight=3), 2)
    assert light.admitted
    assert light.turn < min(queued), "it starts when the first slot is free"
    heavy = Share("heavy", weight=3)
    turns = [requester.send_request(heavy, 2).turn for _ in range(3)]
    assert turns[1] - turns[0] == pytest.approx(2 / (32 * 3 / 7)), "3 of 1 + 3 + 3"


def test_a_wait_counts_later_requests_that_start_earlier(requester: Requester):
    """A light key's second turn is late; until then a heavy key can come and pass it."""
    requester.patience = Patience(60.0, Capacity(slots=1, speed=1.0))
    heavy = Share("heavy", weight=9)
    requester.send_request(heavy, 5)
    first, second = (requester.send_request("light", 2.6) for _ in range(2))
    assert first.wait_s == 5, "its turn has come"
    turn_s = 2.6 / (1 / 10)
    assert second.turn - requester.clock.now == pytest.approx(turn_s)
    assert second.wait_s == pytest.approx(5 + 2.6 + (turn_s - 5) * 9 / 10)
    assert requester.send_request(heavy, 5).turn < second.turn


def test_a_key_that_took_what_others_left_does_not_wait_for_longer(requester: Requester):
    """It is ahead of its part by minutes, and no other key may pass it for minutes."""
    requester.patience = Patience(60.0, Capacity(slots=4, speed=4.0))
    for _ in range(600):
        assert requester.send_request("light", 0.1).admitted
        light = str(requester.requests)
        assert all(requester.send_request("busy", 1).admitted for _ in range(4))
        requester.clock.now += 1
        requester.accounts.renew_charges("i", {light: Charge("light", 1.0, "music", 0.1)})
    busy = requester.send_request("busy", 1)
    assert busy.turn - requester.clock.now <= 60


def test_work_that_was_not_done_gives_its_turn_back(requester: Requester):
    first = requester.send_request("a", 4)
    requester.accounts.settle("i", "1", 4.0)
    assert requester.send_request("a", 4).turn == pytest.approx(first.turn)
    requester.accounts.settle("i", "2", 0.0)
    assert requester.send_request("a", 4).turn == pytest.approx(first.turn + 4 / SPEED)


def test_a_request_is_admitted_after_the_stated_waiting_time(requester: Requester):
    """The model works at a constant speed, one request at a time."""
    running: list[int] = []
    for _ in range(200):
        verdict = requester.send_request("a", 8)
        if verdict.admitted:
            running.append(requester.requests)
            continue
        assert 0 < verdict.wait_s < 60
        before = requester.clock.now
        while running and requester.clock.now < before + verdict.wait_s:
            requester.clock.now += 8 / SPEED
            requester.accounts.settle("i", str(running.pop(0)), 0.0)
            requester.accounts.renew_charges("i", requester.accounts._state.ingresses["i"].charges)
        assert requester.send_request("a", 8).admitted
        running.append(requester.requests)


def test_two_refused_requests_are_not_told_the_same_moment(requester: Requester):
    while requester.send_request("a", 8).admitted:
        pass
    waits = [requester.send_request("a", 8).wait_s for _ in range(3)]
    assert waits == sorted(set(waits))


def test_requests_that_never_come_back_do_not_keep_the_model_idle(requester: Requester):
    while requester.send_request("a", 4).admitted:
        pass
    for _ in range(1000):
        requester.send_request("a", 4)
    for number in range(requester.requests):
        requester.accounts.settle("i", str(number), 0.0)
    assert requester.send_request("a", 4).admitted


def test_a_large_request_is_not_starved_by_small_ones(requester: Requester):
    for _ in range(20):
        requester.send_request("small", 1)
        assert requester.send_request("large", 1000).admitted
        requester.accounts.settle("i", str(requester.requests), 1000.0)


def test_a_late_key_gets_a_share_by_its_weight(requester: Requester):
    heavy, limit = Share("heavy", weight=3), SPEED * MAX_WAIT_S
    while requester.send_request("greedy", 1).admitted:
        pass
    mine = sum(requester.send_request(heavy, 1).admitted for _ in range(100))
    assert mine == pytest.approx(limit / 2, abs=1), "all that still starts in time"
    for number in range(1, 7):  # more than half of what the greedy key has is done
        requester.accounts.settle("i", str(number), 0.0)
    assert not requester.send_request("greedy", 1).admitted
    assert requester.send_request("third", 1).admitted


def test_the_speed_is_what_replicas_report(requester: Requester):
    """Neither cancelled nor finished charges change it."""
    assert requester.accounts.snapshot().speeds == {}
    requester.patience = Patience(MAX_WAIT_S, Capacity(slots=2, speed=5.6))
    requester.send_request("a", 960)
    requester.clock.now += 5
    requester.accounts.settle("i", "1", 900.0)
    assert requester.accounts.snapshot().speeds == {"music": 5.6}


def test_booked_work_is_outstanding_until_it_is_settled(requester: Requester):
    requester.accounts.book("i", "x", Charge("a", 1.0, "codec", 1e6))
    assert requester.accounts.compute_backlog() == {"codec": 1e6}
    requester.accounts.settle("i", "x", 0.0)
    assert requester.accounts.compute_backlog() == {}


KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), KEYS, st.floats(0.1, 100)),
        st.tuples(st.just("settle"), st.integers(0, 30), st.floats(0, 1)),
        st.tuples(st.just("work"), st.integers(0, 30), st.floats(0, 1)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 20)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 4))
def test_charges_are_conserved(steps: list[tuple[str, Any, float]], slots: int):
    """Outstanding is what was admitted, less what was worked off and settled, and never else."""
    requester = Requester()
    requester.patience = Patience(MAX_WAIT_S, Capacity(slots, SPEED))
    open_charges: dict[str, Charge] = {}
    for what, which, amount in steps:
        numbers = list(open_charges)
        if what == "ask":
            verdict = requester.send_request(which, amount)
            assert verdict.wait_s >= 0
            if verdict.admitted:
                assert verdict.wait_s <= MAX_WAIT_S
                assert verdict.turn >= requester.clock.now
                number = str(requester.requests)
                open_charges[number] = Charge(which, 1.0, "music", amount)
        elif what == "wait":
            requester.clock.now += min(amount, LEASE_S / 2)
            requester.accounts.renew_charges("i", dict(open_charges))
        elif numbers:
            number = numbers[which % len(numbers)]
            left = amount * open_charges[number].row_seconds
            if what == "settle":
                del open_charges[number]
                requester.accounts.settle("i", number, left)
            else:
                open_charges[number] = replace(open_charges[number], row_seconds=left)
                requester.accounts.renew_charges("i", dict(open_charges))
        total = sum(one.row_seconds for one in open_charges.values())
        assert sum(requester.accounts.compute_backlog().values()) == pytest.approx(total)
    if not open_charges:
        assert requester.send_request("new", 1e6).admitted, "an idle model refuses nobody"


def test_a_key_is_bounded_in_its_outstanding_row_seconds(requester: Requester):
    share = Share("a", row_seconds=10)
    assert [requester.send_request(share).admitted for _ in range(3)] == [True, True, False]
    verdict = requester.send_request(share)
    assert verdict.refused_for == "key"
    assert verdict.wait_s == pytest.approx(2 / SPEED)
    requester.accounts.settle("i", "1", left=4.0)
    assert requester.send_request(share).admitted
    assert requester.send_request(Share("b", row_seconds=1), 5).admitted, (
        "one request is always allowed"
    )


def test_a_key_is_bounded_in_its_rate(requester: Requester):
    share = Share("a", requests_per_minute=3)
    assert [requester.send_request(share, 0.1).admitted for _ in range(4)] == [True] * 3 + [False]
    verdict = requester.send_request(share, 0.1)
    assert (verdict.refused_for, verdict.wait_s) == ("rate", pytest.approx(20))
    requester.clock.now += 19
    requester.accounts.renew_charges("i", {})
    assert not requester.send_request(share, 0.1).admitted
    requester.clock.now += 1.01
    assert requester.send_request(share, 0.1).admitted


def test_a_snapshot_leaves_out_a_dead_ingress(requester: Requester):
    requester.send_request("a", 100, ingress="gone")
    assert requester.accounts.snapshot().requests == {"music": 1}
    requester.clock.now += LEASE_S + 1
    snapshot = requester.accounts.snapshot()
    assert (snapshot.row_seconds, snapshot.requests) == ({}, {})


def test_a_silent_ingress_loses_its_charges(requester: Requester):
    requester.send_request("a", 100, ingress="gone")
    charge = Charge("a", 1.0, "music", 7)
    for _ in range(4):
        requester.clock.now += LEASE_S / 3
        requester.accounts.renew_charges("alive", {"x": charge})
    assert requester.accounts.compute_backlog() == {"music": 7}


def test_a_restarted_ledger_gets_its_charges_back_from_renewals(requester: Requester):
    requester.send_request("a", 5)
    fresh = Accounts(requester.clock, requester.clock)
    fresh.renew_charges("i", {"1": Charge("a", 1.0, "music", 5)})
    assert fresh.compute_backlog() == {"music": 5}
    fresh.settle("i", "1", left=0.0)
    assert fresh.compute_backlog() == {}


def test_a_list_of_requests_is_counted_as_a_whole(requester: Requester):
    share = Share("a", requests_per_minute=10)

    def meter(share: Share, number: int) -> Verdict:
        return requester.accounts.meter_requests(share, number)[0]

    assert meter(share, 6).admitted
    refused = meter(share, 6)
    assert (refused.refused_for, refused.wait_s) == ("rate", pytest.approx(2 * 60 / 10))
    assert meter(share, 4).admitted, "the refused list took nothing"
    requester.clock.now += 60
    assert meter(share, 30).admitted, "a list above the rate takes a full bucket, and more"
    requester.clock.now += 60
    assert not meter(share, 1).admitted
