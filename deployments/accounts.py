"""Decides which requests are admitted, from outstanding charges and from the speed of each model.

Work is measured in row-seconds: seconds of audio times the rows of each step. An ingress renews its
charges regularly, so a ledger that starts without saved state gets them back.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

LEASE_S = 15.0
"""An ingress is removed with its charges after so many seconds without a call."""
HALF_LIFE_S = 60.0
"""Measured speed loses half of its weight after so many seconds of work."""
ASSUMED_SPEED, ASSUMED_FOR_S = 2.0, 5.0
"""The speed of a new model in row-seconds a second (real time), weighted as so many seconds."""
SLOWEST = 0.01
"""The lowest speed that is used, in row-seconds a second."""


@dataclass(frozen=True)
class Share:
    """The limits of one API key."""

    name: str
    weight: float = 1.0
    """The key's share of a busy model, relative to the weights of the other keys."""
    requests_per_minute: float | None = None
    row_seconds: float | None = None
    """The most row-seconds that may be outstanding at once; None: no limit."""


@dataclass(frozen=True)
class Charge:
    """The price of an admitted request that has not ended."""

    key: str
    weight: float
    model: str
    row_seconds: float
    clips: int = 1
    """The number of clips; each takes a slot."""


@dataclass(frozen=True)
class Patience:
    """How long a request may wait for its model."""

    max_wait_s: float
    slots: int = 0
    """The model's slots: so many clips start immediately at any speed; 0: not known."""


@dataclass(frozen=True)
class Verdict:
    """The decision on one request."""

    refused_for: Literal["rate", "key", "busy"] | None
    wait_s: float
    """Seconds until an admitted request starts, or until a refused one can be admitted."""

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
    """Row-seconds finished per second of work; models that have not worked are absent."""


@dataclass
class Speed:
    """Measures how many row-seconds a model finishes per second of work; older work counts less."""

    done: float = ASSUMED_SPEED * ASSUMED_FOR_S
    busy: float = ASSUMED_FOR_S
    pending: float = 0.0
    """Seconds of work since the last finished request; they count with the next finished one."""

    def add_finished(self, row_seconds: float) -> None:
        """Add a finished request, and count the pending seconds as its work."""
        decay = 0.5 ** (self.pending / HALF_LIFE_S)
        self.done = self.done * decay + row_seconds
        self.busy = self.busy * decay + self.pending
        self.pending = 0.0

    def discard_pending(self, part: float) -> None:
        """Discard a part of the pending seconds, 0 to 1, when a request was cancelled."""
        self.pending *= 1 - part

    @property
    def value(self) -> float:
        """The speed in row-seconds per second."""
        return max(self.done / self.busy, SLOWEST)


@dataclass
class Bucket:
    """A token bucket for the rate of one key; it holds at most one minute of requests."""

    left: float
    at: float


@dataclass
class Ingress:
    """The charges of one ingress replica, and when it last renewed them."""

    beat: float
    charges: dict[str, Charge] = field(default_factory=dict)


@dataclass
class LedgerState:
    """The whole state of the ledger at one time of its clock."""

    at: float
    ingresses: dict[str, Ingress] = field(default_factory=dict)
    speeds: dict[str, Speed] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)


LEDGER_STATE = TypeAdapter(LedgerState)


class Accounts:
    """Admits and charges requests. An idle model refuses a request only for its key's rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
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
        charges = self._get_ingress(ingress, now).charges
        charges.pop(number, None)  # a renewal may have added it before its admission
        verdict = self._check_key_bound(charge, share) or self._check_backlog(charge, patience)
        if verdict.admitted and (missing := self._take_from_rate(share, now)):
            verdict = Verdict("rate", missing)
        if verdict.admitted:
            charges[number] = charge
        return verdict

    def settle(self, ingress: str, number: str, *, done: bool) -> None:
        """Remove a charge; `done` says that its work was finished and not cancelled."""
        now = self._advance_clock()
        total = self.compute_backlog()
        charge = self._get_ingress(ingress, now).charges.pop(number, None)
        if charge:
            speed = self._state.speeds.setdefault(charge.model, Speed())
            if done:
                speed.add_finished(charge.row_seconds)
            else:
                speed.discard_pending(charge.row_seconds / total[charge.model])

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
        return Snapshot(row_seconds, dict(requests), self.get_speeds())

    def get_speeds(self) -> dict[str, float]:
        """Return the speed of each model that has worked, in row-seconds per second."""
        return {model: speed.value for model, speed in self._state.speeds.items()}

    def _check_key_bound(self, charge: Charge, share: Share) -> Verdict | None:
        """Refuse a request beyond its key's outstanding row-seconds, unless it is the only one."""
        own = sum(c.row_seconds for c in self._list_charges() if c.key == charge.key)
        if share.row_seconds is None or not own:
            return None
        over = min(own, own + charge.row_seconds - share.row_seconds)
        return Verdict("key", over / self._get_speed(charge.model)) if over > 0 else None

    def _check_backlog(self, charge: Charge, patience: Patience) -> Verdict:
        """Admit a request that starts within `max_wait_s`, or whose key is below its fair share."""
        of_model = [c for c in self._list_charges() if c.model == charge.model]
        if sum(c.clips for c in of_model) + charge.clips <= patience.slots:
            return Verdict(None, 0.0)
        total = sum(c.row_seconds for c in of_model)
        own = sum(c.row_seconds for c in of_model if c.key == charge.key)
        weights = {c.key: c.weight for c in (*of_model, charge)}
        speed = self._get_speed(charge.model)
        limit = speed * patience.max_wait_s
        fair = limit * charge.weight / sum(weights.values())
        if total <= limit or own <= fair:
            return Verdict(None, total / speed)
        until_limit = (total - limit) / speed
        until_share = (own - fair) / (speed * own / total)
        return Verdict("busy", min(until_limit, until_share))

    def _take_from_rate(self, share: Share, now: float) -> float:
        """Count a request against its key's rate; return the seconds to wait, or 0."""
        rate = share.requests_per_minute
        if rate is None:
            return 0.0
        bucket = self._state.buckets.setdefault(share.name, Bucket(rate, now))
        bucket.left = min(rate, bucket.left + (now - bucket.at) * rate / 60)
        bucket.at = now
        if bucket.left < 1:
            return (1 - bucket.left) * 60 / rate
        bucket.left -= 1
        return 0.0

    def _advance_clock(self) -> float:
        """Add the time since the last call to busy models; remove ingresses after `LEASE_S`."""
        now = self._clock()
        for name in [n for n, one in self._state.ingresses.items() if now - one.beat > LEASE_S]:
            del self._state.ingresses[name]
        for model in {charge.model for charge in self._list_charges()}:
            self._state.speeds.setdefault(model, Speed()).pending += now - self._state.at
        self._state.at = now
        return now

    def _get_ingress(self, ingress: str, now: float) -> Ingress:
        return self._state.ingresses.setdefault(ingress, Ingress(now))

    def _list_charges(self) -> list[Charge]:
        return [charge for one in self._state.ingresses.values() for charge in one.charges.values()]

    def _get_speed(self, model: str) -> float:
        return self._state.speeds.setdefault(model, Speed()).value
