"""Who has how much of each model outstanding, how fast models work, and who may have more.

Kept in row-seconds: seconds of audio by the rows that each of its steps takes. All of it is soft:
charges live by their ingress's beats and come back with them, even where nothing was kept.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

LEASE_S = 15.0
"""An ingress that was silent for so long is gone, and its charges with it."""
HALF_LIFE_S = 60.0
"""Of what is known of a model's speed, in seconds of work."""
ASSUMED_SPEED, ASSUMED_FOR_S = 2.0, 5.0
"""Row-seconds a second, for so many seconds of work, until more is known: real time."""
SLOWEST = 0.01
"""No speed is taken to be below it, whatever was measured."""


@dataclass(frozen=True)
class Share:
    """What the requests of one API key may have."""

    name: str
    weight: float = 1.0
    """Its part of a busy model, beside the weights of others that ask."""
    requests_per_minute: float | None = None
    row_seconds: float | None = None
    """Outstanding at once."""


@dataclass(frozen=True)
class Charge:
    """A request that was let in and has not ended."""

    key: str
    weight: float
    model: str
    row_seconds: float
    clips: int = 1
    """That take a slot each."""


@dataclass(frozen=True)
class Patience:
    """How long a request may wait for its model."""

    max_wait_s: float
    slots: int = 0
    """So many clips start at once, whatever the model's speed has been; 0: not known."""


@dataclass(frozen=True)
class Verdict:
    """Whether a request is let in."""

    refused_for: Literal["rate", "key", "busy"] | None
    wait_s: float
    """Until it may start, if let in; else until it may be let in."""

    @property
    def admitted(self) -> bool:
        """Whether it is."""
        return self.refused_for is None


@dataclass(frozen=True)
class Snapshot:
    """What is outstanding, and how fast models work, by model."""

    row_seconds: dict[str, float]
    requests: dict[str, int]
    speeds: dict[str, float]
    """Row-seconds finished in a second of work, of those that have worked."""


@dataclass
class Speed:
    """Row-seconds that a model finishes in a second of work; older work counts less."""

    done: float = ASSUMED_SPEED * ASSUMED_FOR_S
    busy: float = ASSUMED_FOR_S
    pending: float = 0.0
    """Seconds of work since something was finished: they say nothing until something is."""

    def add_finished(self, row_seconds: float) -> None:
        """Take in what was finished by the work since the last time."""
        kept = 0.5 ** (self.pending / HALF_LIFE_S)
        self.done = self.done * kept + row_seconds
        self.busy = self.busy * kept + self.pending
        self.pending = 0.0

    def discard_pending(self, part: float) -> None:
        """Take in that so much of the pending work came to nothing."""
        self.pending *= 1 - part

    @property
    def value(self) -> float:
        """Row-seconds a second."""
        return max(self.done / self.busy, SLOWEST)


@dataclass
class Bucket:
    """A key's requests: a minute's worth at once, then as they come back."""

    left: float
    at: float


@dataclass
class Ingress:
    """What one ingress replica has let in."""

    beat: float
    charges: dict[str, Charge] = field(default_factory=dict)


@dataclass
class LedgerState:
    """All that is known, as of a time of the accounts' clock."""

    at: float
    ingresses: dict[str, Ingress] = field(default_factory=dict)
    speeds: dict[str, Speed] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)


LEDGER_STATE = TypeAdapter(LedgerState)


class Accounts:
    """Decides who is let in. Where nothing is outstanding, only a key's own rate refuses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = LedgerState(clock())

    def dump_state(self) -> bytes:
        """Return all that is known, as JSON."""
        self._advance_clock()
        return LEDGER_STATE.dump_json(self._state)

    def load_state(self, written: bytes) -> None:
        """Know what was written, on whichever machine; the time since then counts as none.

        Raises ValidationError where it is something else.
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
        """The ingresses that were heard of not long ago."""
        self._advance_clock()
        return self._state.ingresses.keys()

    def admit(
        self, ingress: str, number: str, charge: Charge, share: Share, patience: Patience
    ) -> Verdict:
        """Let a request in and charge it, or say why not and how long to wait."""
        now = self._advance_clock()
        charges = self._get_ingress(ingress, now).charges
        charges.pop(number, None)  # a beat may have brought it before it was let in
        verdict = self._check_key_bound(charge, share) or self._check_backlog(charge, patience)
        if verdict.admitted and (missing := self._take_from_rate(share, now)):
            verdict = Verdict("rate", missing)
        if verdict.admitted:
            charges[number] = charge
        return verdict

    def settle(self, ingress: str, number: str, *, done: bool) -> None:
        """End a charge; `done` where its work was finished and not left."""
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
        """Keep an ingress's charges; after a restart, have them again."""
        now = self._advance_clock()
        known = self._get_ingress(ingress, now)
        known.beat = now
        known.charges = dict(charges)

    def compute_backlog(self) -> dict[str, float]:
        """Return row-seconds outstanding, by model."""
        self._advance_clock()
        sums: dict[str, float] = {}
        for charge in self._list_charges():
            sums[charge.model] = sums.get(charge.model, 0.0) + charge.row_seconds
        return sums

    def snapshot(self) -> Snapshot:
        """Return this moment's."""
        row_seconds = self.compute_backlog()  # first: it lets go of ingresses that are gone
        requests = Counter(charge.model for charge in self._list_charges())
        return Snapshot(row_seconds, dict(requests), self.get_speeds())

    def get_speeds(self) -> dict[str, float]:
        """Return row-seconds a second, by model, of those that have worked."""
        return {model: speed.value for model, speed in self._state.speeds.items()}

    def _check_key_bound(self, charge: Charge, share: Share) -> Verdict | None:
        """Refuse what goes beyond what a key may have outstanding; one request it always may."""
        own = sum(c.row_seconds for c in self._list_charges() if c.key == charge.key)
        if share.row_seconds is None or not own:
            return None
        over = min(own, own + charge.row_seconds - share.row_seconds)
        return Verdict("key", over / self._get_speed(charge.model)) if over > 0 else None

    def _check_backlog(self, charge: Charge, patience: Patience) -> Verdict:
        """Let in what starts at once, or within `max_wait_s`; then, who has less than its share."""
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
        until_room = (total - limit) / speed
        until_share = (own - fair) / (speed * own / total)
        return Verdict("busy", min(until_room, until_share))

    def _take_from_rate(self, share: Share, now: float) -> float:
        """Take a request out of a key's rate; return the seconds until there is one, or 0."""
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
        """Let time pass: for models at work, and for ingresses that are gone."""
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
