"""Tests that admission is fair between keys and correct about waiting times."""

import pytest

from deployments.accounts import ASSUMED_SPEED, LEASE_S, Accounts, Charge, Patience, Share

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
        self.accounts = Accounts(self.clock)
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
    for number in range(3):
        requester.accounts.settle("i", str(number + 1), done=number != 1)
    requester.clock.now += 7200
    assert requester.send_request("a", price).admitted


def test_a_busy_model_refuses_with_a_waiting_time(requester: Requester):
    """A request is admitted if it starts in time, even if it then takes long."""
    limit = ASSUMED_SPEED * MAX_WAIT_S
    admitted = [requester.send_request().admitted for _ in range(8)]
    assert admitted == [True] * (int(limit / 4) + 1) + [False] * 2
    verdict = requester.send_request()
    assert verdict.refused_for == "busy"
    assert verdict.wait_s == pytest.approx(4 / ASSUMED_SPEED)


def test_a_request_with_a_free_slot_is_admitted_at_any_speed(requester: Requester):
    requester.patience = Patience(MAX_WAIT_S, slots=30)
    admitted = [requester.send_request().admitted for _ in range(32)]
    assert admitted == [True] * 30 + [False] * 2, "the backlog is far above its limit"
    requester.patience = Patience(MAX_WAIT_S, slots=1000)
    assert requester.send_request().admitted


def test_a_request_is_admitted_after_the_stated_waiting_time(requester: Requester):
    """The model works at a constant speed, one request at a time."""
    speed, tries = 4.0, 0
    running: list[int] = []
    while tries < 200:
        tries += 1
        verdict = requester.send_request("a", 8)
        if verdict.admitted:
            running.append(requester.requests)
            continue
        assert 0 < verdict.wait_s < 60
        before = requester.clock.now
        while running and requester.clock.now < before + verdict.wait_s:
            requester.clock.now += 8 / speed
            requester.accounts.settle("i", str(running.pop(0)), done=True)
            requester.accounts.renew_charges("i", requester.accounts._state.ingresses["i"].charges)
        again = requester.send_request("a", 8)
        assert again.admitted
        running.append(requester.requests)
    assert requester.accounts.get_speeds()["music"] == pytest.approx(speed, rel=0.1)


def test_a_large_request_is_not_starved_by_small_ones(requester: Requester):
    for _ in range(20):
        requester.send_request("small", 1)
        assert requester.send_request("large", 1000).admitted
        requester.accounts.settle("i", str(requester.requests), done=False)


def test_a_late_key_gets_a_share_by_its_weight(requester: Requester):
    heavy = Share("heavy", weight=3)
    while requester.send_request("greedy", 1).admitted:
        pass
    mine = sum(requester.send_request(heavy, 1).admitted for _ in range(100))
    assert mine == pytest.approx(0.75 * ASSUMED_SPEED * MAX_WAIT_S, abs=1)
    assert not requester.send_request("greedy", 1).admitted
    assert requester.send_request("third", 1).admitted


def test_a_key_is_bounded_in_its_outstanding_row_seconds(requester: Requester):
    share = Share("a", row_seconds=10)
    assert [requester.send_request(share).admitted for _ in range(3)] == [True, True, False]
    verdict = requester.send_request(share)
    assert verdict.refused_for == "key"
    assert verdict.wait_s == pytest.approx(2 / ASSUMED_SPEED)
    requester.accounts.settle("i", "1", done=False)
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


def test_speed_is_measured_while_there_is_work(requester: Requester):
    for _ in range(30):
        assert requester.send_request("a", 10).admitted
        requester.clock.now += 1
        requester.accounts.settle("i", str(requester.requests), done=True)
        requester.clock.now += 100  # idle time does not change the speed
        requester.accounts.renew_charges("i", {})
    assert requester.accounts.get_speeds()["music"] == pytest.approx(10, rel=0.2)
    for number in range(17):
        assert requester.send_request("a", 5).admitted, number


@pytest.mark.parametrize("done", [True, False])
def test_long_work_does_not_make_a_model_seem_slow(requester: Requester, done: bool):
    """Neither running nor cancelled work changes the measured speed."""
    requester.send_request("a", 960)
    for _ in range(20):
        requester.clock.now += 5
        requester.accounts.renew_charges("i", requester.accounts._state.ingresses["i"].charges)
        assert requester.accounts.get_speeds()["music"] == pytest.approx(ASSUMED_SPEED)
    requester.accounts.settle("i", "1", done=done)
    expected = pytest.approx(9.6, rel=0.1) if done else pytest.approx(ASSUMED_SPEED)
    assert requester.accounts.get_speeds()["music"] == expected
    assert requester.accounts.compute_backlog() == {}


def test_a_dead_ingress_does_not_make_a_model_seem_slow(requester: Requester):
    requester.send_request("a", 10)
    requester.clock.now += 20 * 3600
    assert requester.send_request("a", 10).admitted
    assert requester.accounts.get_speeds()["music"] == pytest.approx(ASSUMED_SPEED)


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
    fresh = Accounts(requester.clock)
    fresh.renew_charges("i", {"1": Charge("a", 1.0, "music", 5)})
    assert fresh.compute_backlog() == {"music": 5}
    fresh.settle("i", "1", done=True)
    assert fresh.compute_backlog() == {}
