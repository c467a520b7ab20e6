"""Decides which requests are admitted and in which order they start, from outstanding charges.

Work is measured in the unit of the model's price, such as row-seconds: seconds of audio times the
rows of each step. An ingress renews its charges each second with what is left of them, so a ledger
that starts without saved state gets them back.

A key is admitted while its own work is within its share of the work that can start in time. The
shares are by weight, and one share of weight 1 is left free for a key that comes next. Work starts
in the order of turns: times at which it would start if each key had exactly its part of the model
(VirtualClock, Zhang 1990). A later request has no turn before its arrival, so none waits for ever.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from deployments.capacity import Capacity, Patience, estimate_wait
from deployments.ledger_state import (
    LEDGER_STATE,
    Bucket,
    Charge,
    Ingress,
    LedgerState,
    Promise,
    Share,
)

LEASE_S = 15.0
"""An ingress is removed with its charges after so many seconds without a call."""
PROMISE_S = 6.0
"""A refused request that comes back within so many seconds after its wait is expected by then."""
OWN_S = 0.5
"""A place is kept for so many seconds for a request of the price that it was promised to."""
SHORT_WAIT = 0.25
"""The part of the longest wait below which no place is kept for requests that may not come back."""
MAX_PROMISED = 10.0
"""The most work that is promised to one key, in its shares of the work that can start in time."""


@dataclass(frozen=True)
class Verdict:
    """The decision on one request."""

    refused_for: Literal["rate", "key", "busy"] | None
    wait_s: float
    """Seconds until an admitted request starts, or until a refused one can be admitted."""
    turn: float = 0.0
    """The place of an admitted request in the queue, lowest first, in Unix seconds."""
    turn_s: float = 0.0
    """The seconds from its turn to the next turn of the same key."""

    @property
    def admitted(self) -> bool:
        """Whether the request is admitted."""
        return self.refused_for is None


@dataclass(frozen=True)
class Snapshot:
    """The outstanding work and the speed of each model."""

    row_seconds: dict[str, float]
    requests: dict[str, int]
    speeds: dict[str, float]
    """Work per second, as replicas report it; models that have reported none are absent."""


NOTHING_KNOWN = Snapshot({}, {}, {})
"""What an ingress goes by while it cannot reach the ledger."""


class Accounts:
    """Admits and charges requests. An idle model refuses a request only for its key's rate."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._unix_clock = clock, unix_clock
        self._state = LedgerState(clock())

    def dump_state(self) -> bytes:
        """Return the state as JSON."""
        self._advance_clock()
        return LEDGER_STATE.dump_json(self._state)

    def load_state(self, written: str | bytes) -> None:
        """Replace the state by one that any machine wrote; the time since then does not count.

        Raises ValidationError if it is not such a state.
        """
        state, now = LEDGER_STATE.validate_json(written), self._clock()
        for ingress in state.ingresses.values():
            ingress.beat += now - state.at
        for bucket in state.buckets.values():
            bucket.at += now - state.at
        for promise in (one for of_model in state.promises.values() for one in of_model):
            promise.due += now - state.at
        state.at = now
        self._state = state

    @property
    def live_ingresses(self) -> Collection[str]:
        """The names of the ingresses that called within the last `LEASE_S` seconds."""
        self._advance_clock()
        return self._state.ingresses.keys()

    def admit(
        self, ingress: str, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Admit a request and charge it, or return the reason and the time to wait."""
        now = self._advance_clock()
        if patience.capacity.speed is not None:
            self._state.speeds[charge.model] = patience.capacity.speed
        charges = self._get_ingress(ingress, now).charges
        charges.pop(number, None)  # a renewal may have added it before its admission
        verdict = self._check_key_bound(charge, share, patience.capacity)
        verdict = verdict or self._check_backlog(charge, patience, now)
        if verdict.admitted and (missing := self._take_from_rate(share, now)):
            verdict = Verdict("rate", missing)
        if verdict.admitted:
            verdict = self._give_turn(charge, verdict, patience)
            charges[number] = charge
        return verdict

    def meter_requests(self, share: Share, number: int) -> tuple[Verdict, Snapshot]:
        """Count requests that begin later, such as jobs, against their key's rate, all or none.

        The outstanding work is returned as well, by which they are planned.
        """
        missing = self._take_from_rate(share, self._advance_clock(), number)
        return Verdict("rate" if missing else None, missing), self.snapshot()

    def book(self, ingress: str, number: str, charge: Charge) -> None:
        """Charge work that has begun, whatever is outstanding."""
        self._get_ingress(ingress, self._advance_clock()).charges[number] = charge

    def settle(self, ingress: str, number: str, left: float) -> None:
        """Remove a charge, of which `left` row-seconds were not worked off: its key gets them."""
        now = self._advance_clock()
        charge = self._get_ingress(ingress, now).charges.pop(number, None)
        turns = self._state.turns.get(charge.model, {}) if charge else {}
        if charge and charge.key in turns:
            capacity = Capacity(speed=self._state.speeds.get(charge.model))
            turns[charge.key] -= self._measure_turn(replace(charge, row_seconds=left), capacity)

    def renew_charges(self, ingress: str, charges: Mapping[str, Charge]) -> None:
        """Replace the charges of an ingress, which also restores them after a restart."""
        now = self._advance_clock()
        found = self._get_ingress(ingress, now)
        found.beat = now
        found.charges = dict(charges)

    def compute_backlog(self) -> dict[str, float]:
        """Return the outstanding row-seconds of each model."""
        self._advance_clock()
        sums: dict[str, float] = {}
        for charge in self._list_charges():
            sums[charge.model] = sums.get(charge.model, 0.0) + charge.row_seconds
        return sums

    def snapshot(self) -> Snapshot:
        """Return the outstanding work and the speed of each model."""
        row_seconds = self.compute_backlog()  # first, since it removes dead ingresses
        requests = Counter(charge.model for charge in self._list_charges())
        return Snapshot(row_seconds, dict(requests), dict(self._state.speeds))

    def _check_key_bound(self, charge: Charge, share: Share, capacity: Capacity) -> Verdict | None:
        """Refuse a request beyond its key's outstanding row-seconds, unless it is the only one."""
        own = sum(c.row_seconds for c in self._list_charges() if c.key == charge.key)
        if share.row_seconds is None or not own:
            return None
        over = min(own, own + charge.row_seconds - share.row_seconds)
        return Verdict("key", over / capacity.usable_speed) if over > 0 else None

    def _check_backlog(self, charge: Charge, patience: Patience, now: float) -> Verdict:
        """Admit a request that can start in time and whose key is within its share."""
        of_model = [c for c in self._list_charges() if c.model == charge.model]
        capacity, speed = patience.capacity, patience.capacity.usable_speed
        promises = self._keep_promises(charge.model, now)
        if sum(c.clips for c in of_model) + charge.clips <= capacity.slots:
            _take_due(promises, charge, now)
            return Verdict(None, 0.0)
        own = sum(c.row_seconds for c in of_model if c.key == charge.key)
        promised = sum(p.row_seconds for p in promises if p.key == charge.key)
        weights = {charge.key: charge.weight} | {c.key: c.weight for c in of_model}
        weights |= {promise.key: promise.weight for promise in promises}
        total = sum(weights.values())
        rate = speed * charge.weight / total
        limit = speed * patience.max_wait_s * charge.weight / (total + 1)
        turns = self._list_turns(charge.model)
        turn = turns.get(charge.key, 0.0)
        queue = estimate_wait([(c.row_seconds, c.clips) for c in of_model], capacity)
        wait = queue + _estimate_overtaking(turn, turns, weights)
        over = min(own, own + charge.row_seconds - limit)
        short = queue <= SHORT_WAIT * patience.max_wait_s
        within = over <= 0 and (short or min(own + promised, over + promised) <= 0)
        if wait <= patience.max_wait_s and (_take_due(promises, charge, now) or within):
            return Verdict(None, wait)
        promised = min(promised, MAX_PROMISED * limit)
        wait = queue + _estimate_overtaking(turn + promised / rate, turns, weights)
        # Whole seconds, as in `Retry-After`: a place that is due early would go to another request.
        wait = max(1, math.ceil(max(wait - patience.max_wait_s, (over + promised) / rate)))
        if promised < MAX_PROMISED * limit:
            promises.append(Promise(charge.key, charge.weight, charge.row_seconds, now + wait))
        return Verdict("busy", wait)

    def _keep_promises(self, model: str, now: float) -> list[Promise]:
        """Return the promises of a model without those whose requests did not come back."""
        promises = self._state.promises.setdefault(model, [])
        promises[:] = [one for one in promises if now < one.due + PROMISE_S]
        return promises

    def _list_turns(self, model: str) -> dict[str, float]:
        """Return the seconds until the next turn of each key whose turn lies ahead."""
        now, turns = self._unix_clock(), self._state.turns.get(model, {})
        return {key: turn - now for key, turn in turns.items() if turn > now}

    def _give_turn(self, charge: Charge, verdict: Verdict, patience: Patience) -> Verdict:
        """Return the verdict with the turn of an admitted charge, and move on its key's turn.

        The next turn is at most the longest wait away: a key that got ahead of its part, because
        others left theirs, does not wait for longer when they come.
        """
        turns = self._list_turns(charge.model)
        turn, turn_s = turns.get(charge.key, 0.0), self._measure_turn(charge, patience.capacity)
        turns[charge.key] = max(turn, min(turn + turn_s, patience.max_wait_s))
        now = self._unix_clock()
        self._state.turns[charge.model] = {key: now + ahead for key, ahead in turns.items()}
        return replace(verdict, turn=now + turn, turn_s=turn_s)

    def _measure_turn(self, charge: Charge, capacity: Capacity) -> float:
        """Return the seconds that a charge takes at its key's part of the model."""
        weights = {c.key: c.weight for c in self._list_charges() if c.model == charge.model}
        weights[charge.key] = charge.weight
        part = charge.weight / sum(weights.values())
        return charge.row_seconds / (capacity.usable_speed * part)

    def _take_from_rate(self, share: Share, now: float, number: int = 1) -> float:
        """Count requests against their key's rate; return the seconds to wait, or 0.

        More than a minute's requests are let in at once by a full bucket, which is empty for as
        long afterwards.
        """
        rate = share.requests_per_minute
        if rate is None:
            return 0.0
        bucket = self._state.buckets.setdefault(share.name, Bucket(rate, now))
        bucket.left = min(rate, bucket.left + (now - bucket.at) * rate / 60)
        bucket.at = now
        needed = min(number, rate)
        if bucket.left < needed:
            return (needed - bucket.left) * 60 / rate
        bucket.left -= number
        return 0.0

    def _advance_clock(self) -> float:
        """Set the time of the state; remove ingresses after `LEASE_S`."""
        now = self._state.at = self._clock()
        for name in [n for n, one in self._state.ingresses.items() if now - one.beat > LEASE_S]:
            del self._state.ingresses[name]
        return now

    def _get_ingress(self, ingress: str, now: float) -> Ingress:
        return self._state.ingresses.setdefault(ingress, Ingress(now))

    def _list_charges(self) -> list[Charge]:
        return [charge for one in self._state.ingresses.values() for charge in one.charges.values()]


def _take_due(promises: list[Promise], charge: Charge, now: float) -> bool:
    """Remove the first due promise of a key; return whether there was one.

    At first only a request of the same price can take it, which is most likely the promised one.
    """
    for index, promise in enumerate(promises):
        free = charge.row_seconds == promise.row_seconds or promise.due + OWN_S <= now
        if promise.key == charge.key and promise.due <= now and free:
            del promises[index]
            return True
    return False


def _estimate_overtaking(
    turn: float, turns: Mapping[str, float], weights: Mapping[str, float]
) -> float:
    """Return how long a model may work for requests that come later and have earlier turns.

    Each key gets its part from its own next turn until this one; turns are in seconds from now.
    """
    ahead = {key: max(0.0, turn - turns.get(key, 0.0)) for key in weights}
    return sum(weights[key] * ahead[key] for key in weights) / sum(weights.values())
