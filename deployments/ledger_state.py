"""Defines what the ledger remembers: charges, turns, promises and rates."""

from dataclasses import dataclass, field

from pydantic import TypeAdapter


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
    """The price of an admitted request; what is left of it while the request runs."""

    key: str
    weight: float
    model: str
    row_seconds: float
    clips: int = 1
    """The clips that run at the same time; each takes a slot."""


@dataclass
class Bucket:
    """A token bucket for the rate of one key; it holds at most one minute of requests."""

    left: float
    at: float


@dataclass
class Promise:
    """A refused request that was told when it can be admitted."""

    key: str
    weight: float
    row_seconds: float
    due: float


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
    speeds: dict[str, float] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    turns: dict[str, dict[str, float]] = field(default_factory=dict)
    """The next turn of each key, by model and key, in Unix seconds."""
    promises: dict[str, list[Promise]] = field(default_factory=dict)
    """By model, in the order in which they were made."""


LEDGER_STATE = TypeAdapter(LedgerState)
