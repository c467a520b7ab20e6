"""Who is let in: fair between keys, honest about waiting, and never a refusal without work."""

import pytest

from deployments.accounts import ASSUMED_SPEED, LEASE_S, Accounts, Charge, Patience, Share

MAX_WAIT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """Asks for one ingress, and counts."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.accounts = Accounts(self.clock)
        self.asked = 0
        self.patience = Patience(MAX_WAIT_S)

    def ask(self, key: str | Share = "a", price: float = 4.0, ingress: str = "i"):
        share = key if isinstance(key, Share) else Share(key)
        self.asked += 1
        charge = Charge(share.name, share.weight, "music", price)
        return self.accounts.admit(ingress, str(self.asked), charge, share, self.patience)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("price", [1, 1e6])
def test_an_idle_system_never_refuses(desk: Desk, price: float):
    for key in "abc":
        assert desk.ask(key, price).admitted, "its first, whatever it asks"
    for number in range(3):
        desk.accounts.settle("i", str(number + 1), done=number != 1)
    desk.clock.now += 7200
    assert desk.ask("a", price).admitted


def test_a_busy_model_refuses_and_says_when_to_come_again(desk: Desk):
    """Let in is what would start in time, however long it then takes."""
    limit = ASSUMED_SPEED * MAX_WAIT_S
    admitted = [desk.ask().admitted for _ in range(8)]
    assert admitted == [True] * (int(limit / 4) + 1) + [False] * 2
    verdict = desk.ask()
    assert verdict.refused_for == "busy"
    assert verdict.wait_s == pytest.approx(4 / ASSUMED_SPEED)


def test_who_finds_a_slot_is_let_in_however_slow_the_model_was(desk: Desk):
    desk.patience = Patience(MAX_WAIT_S, slots=30)
    admitted = [desk.ask().admitted for _ in range(32)]
    assert admitted == [True] * 30 + [False] * 2, "the backlog is far beyond its limit by then"
    desk.patience = Patience(MAX_WAIT_S, slots=1000)
    assert desk.ask().admitted


def test_the_time_that_a_refusal_says_is_true(desk: Desk):
    """Worked off at a constant speed, one after the other: who comes back in time is let in."""
    speed, tries = 4.0, 0
    running: list[int] = []
    while tries < 200:
        tries += 1
        verdict = desk.ask("a", 8)
        if verdict.admitted:
            running.append(desk.asked)
            continue
        assert 0 < verdict.wait_s < 60
        before = desk.clock.now
        while running and desk.clock.now < before + verdict.wait_s:
            desk.clock.now += 8 / speed
            desk.accounts.settle("i", str(running.pop(0)), done=True)
            desk.accounts.renew_charges("i", desk.accounts._state.ingresses["i"].charges)
        again = desk.ask("a", 8)
        assert again.admitted
        running.append(desk.asked)
    assert desk.accounts.get_speeds()["music"] == pytest.approx(speed, rel=0.1)


def test_a_large_request_is_not_starved_by_small_ones(desk: Desk):
    for _ in range(20):
        desk.ask("small", 1)
        assert desk.ask("large", 1000).admitted
        desk.accounts.settle("i", str(desk.asked), done=False)


def test_who_asks_late_gets_a_share_of_its_weight(desk: Desk):
    heavy = Share("heavy", weight=3)
    while desk.ask("greedy", 1).admitted:
        pass
    mine = sum(desk.ask(heavy, 1).admitted for _ in range(100))
    assert mine == pytest.approx(0.75 * ASSUMED_SPEED * MAX_WAIT_S, abs=1)
    assert not desk.ask("greedy", 1).admitted
    assert desk.ask("third", 1).admitted


def test_a_key_has_no_more_outstanding_than_it_may(desk: Desk):
    share = Share("a", row_seconds=10)
    assert [desk.ask(share).admitted for _ in range(3)] == [True, True, False]
    verdict = desk.ask(share)
    assert verdict.refused_for == "key"
    assert verdict.wait_s == pytest.approx(2 / ASSUMED_SPEED)
    desk.accounts.settle("i", "1", done=False)
    assert desk.ask(share).admitted
    assert desk.ask(Share("b", row_seconds=1), 5).admitted, "one it always may"


def test_a_keys_rate(desk: Desk):
    share = Share("a", requests_per_minute=3)
    assert [desk.ask(share, 0.1).admitted for _ in range(4)] == [True] * 3 + [False]
    verdict = desk.ask(share, 0.1)
    assert (verdict.refused_for, verdict.wait_s) == ("rate", pytest.approx(20))
    desk.clock.now += 19
    desk.accounts.renew_charges("i", {})
    assert not desk.ask(share, 0.1).admitted
    desk.clock.now += 1.01
    assert desk.ask(share, 0.1).admitted


def test_speed_is_measured_while_there_is_work(desk: Desk):
    for _ in range(30):
        assert desk.ask("a", 10).admitted
        desk.clock.now += 1
        desk.accounts.settle("i", str(desk.asked), done=True)
        desk.clock.now += 100  # idle: says nothing of the speed
        desk.accounts.renew_charges("i", {})
    assert desk.accounts.get_speeds()["music"] == pytest.approx(10, rel=0.2)
    for number in range(17):
        assert desk.ask("a", 5).admitted, number


@pytest.mark.parametrize("done", [True, False])
def test_long_work_does_not_make_a_model_seem_slow(desk: Desk, done: bool):
    """While it runs nothing is known of it, and what is left says nothing either."""
    desk.ask("a", 960)
    for _ in range(20):
        desk.clock.now += 5
        desk.accounts.renew_charges("i", desk.accounts._state.ingresses["i"].charges)
        assert desk.accounts.get_speeds()["music"] == pytest.approx(ASSUMED_SPEED)
    desk.accounts.settle("i", "1", done=done)
    wanted = pytest.approx(9.6, rel=0.1) if done else pytest.approx(ASSUMED_SPEED)
    assert desk.accounts.get_speeds()["music"] == wanted
    assert desk.accounts.compute_backlog() == {}


def test_a_dead_ingress_does_not_make_a_model_seem_slow(desk: Desk):
    desk.ask("a", 10)
    desk.clock.now += 20 * 3600
    assert desk.ask("a", 10).admitted
    assert desk.accounts.get_speeds()["music"] == pytest.approx(ASSUMED_SPEED)


def test_what_is_told_leaves_out_an_ingress_that_is_gone(desk: Desk):
    desk.ask("a", 100, ingress="gone")
    assert desk.accounts.snapshot().requests == {"music": 1}
    desk.clock.now += LEASE_S + 1
    told = desk.accounts.snapshot()
    assert (told.row_seconds, told.requests) == ({}, {})


def test_a_silent_ingress_loses_its_charges(desk: Desk):
    desk.ask("a", 100, ingress="gone")
    charge = Charge("a", 1.0, "music", 7)
    for _ in range(4):
        desk.clock.now += LEASE_S / 3
        desk.accounts.renew_charges("alive", {"x": charge})
    assert desk.accounts.compute_backlog() == {"music": 7}


def test_a_restarted_ledger_has_its_charges_back_from_beats(desk: Desk):
    desk.ask("a", 5)
    fresh = Accounts(desk.clock)
    fresh.renew_charges("i", {"1": Charge("a", 1.0, "music", 5)})
    assert fresh.compute_backlog() == {"music": 5}
    fresh.settle("i", "1", done=True)
    assert fresh.compute_backlog() == {}
