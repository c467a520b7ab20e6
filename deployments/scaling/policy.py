"""How many replicas a deployment needs, by the work that its replicas have and that waits for them.

Serve's own policy counts requests, 30 s late; here a replica that is full and a queue that would
not start in time ask for more at once, and what was needed lately is kept for a while.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ray.serve.config import AutoscalingContext

logger = logging.getLogger("ray.serve")

IDLE = 0.01
"""Fewer replicas' worth of work than this is none."""


@dataclass(frozen=True)
class Report:
    """What one replica says of itself, as `record_autoscaling_stats` returns it.

    Work is in row-seconds of a language model, in seconds of audio of all others.
    """

    occupied: float
    """Share of its places that are taken, 0 to 1."""
    queued: float
    """Work that it has and has not begun."""
    speed: float
    """Work a second, with all places taken."""
    request: float
    """Work of one request, as they have been lately."""


@dataclass(frozen=True)
class ScalingTargets:
    """What is wanted of a deployment's scaling."""

    start_within_s: float
    """What waits shall start within so long, once the replicas are up."""
    patience_s: float
    """For how long what was needed is kept."""
    idle_s: float
    """How long nothing may be asked for before the last replica goes, where none is allowed."""
    occupancy: float = 0.9
    """Of all places; the rest takes in what comes while more is started."""


def compute_needed_replicas(
    reports: Sequence[Report], waiting: float, targets: ScalingTargets
) -> float:
    """Return the replicas needed now: for the places that are taken, and for what waits.

    `waiting` counts requests that no replica has yet.
    """
    if not reports:
        return 0.0
    speed = sum(one.speed for one in reports) / len(reports)
    request = sum(one.request for one in reports) / len(reports)
    queued = sum(one.queued for one in reports) + waiting * request
    occupied = sum(one.occupied for one in reports)
    return occupied / targets.occupancy + queued / (speed * targets.start_within_s)


@dataclass
class RecentNeeds:
    """What was needed lately; only what is not outdone by something later."""

    needs: list[tuple[float, float]]
    """When, and how many replicas; ever fewer."""
    busy_at: float
    """When there was work at last."""

    def add_need(self, now: float, replicas: float, patience_s: float) -> float:
        """Take in what is needed now; return the most that was within `patience_s`."""
        lately = [(at, n) for at, n in self.needs if at > now - patience_s and n > replicas]
        self.needs = [*lately, (now, replicas)]
        if replicas > IDLE:
            self.busy_at = now
        return self.needs[0][1]


def decide_replicas(
    recent: RecentNeeds, now: float, replicas: float, targets: ScalingTargets
) -> int:
    """Return how many replicas to have, where so many are needed now."""
    kept = math.ceil(recent.add_need(now, replicas, targets.patience_s) - 1e-9)
    idle = now - recent.busy_at > targets.idle_s
    return 0 if idle else max(kept, 1)


class Backlog:
    """Serve's `policy_function`, a class: one for each deployment, in the controller.

    It never raises: Serve's loop would stop for all applications.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, **targets: float) -> None:
        self._targets, self._clock = ScalingTargets(**targets), clock
        self._recent: RecentNeeds | None = None

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return how many replicas to have; as many as now where that is not known."""
        try:
            return self._decide_replicas(ctx), {}
        except Exception:  # whatever it is: see above
            logger.exception("no decision on the replicas of %s", ctx.deployment_name)
            return int(ctx.target_num_replicas), {}

    def _decide_replicas(self, ctx: AutoscalingContext) -> int:
        now = self._clock()
        # A controller that has just begun knows nothing of before: what is there may be needed.
        there = float(ctx.target_num_replicas)
        recent = self._recent or RecentNeeds([(now, there)], now if there else -math.inf)
        self._recent = recent
        reports = collect_reports(ctx.aggregated_metrics or {})
        if ctx.current_num_replicas and not reports:
            # Those that have said nothing yet were started for something: by Serve itself, unasked,
            # where a request found none.
            recent.busy_at = now
            return int(ctx.target_num_replicas)
        replicas = compute_needed_replicas(reports, ctx.total_queued_requests or 0.0, self._targets)
        return decide_replicas(recent, now, replicas, self._targets)


def collect_reports(metrics: Mapping[str, Mapping[Any, float]]) -> list[Report]:
    """Return what replicas say, from values by name and replica; of those that say all."""
    names = [field.name for field in fields(Report)]
    replicas = metrics.get(names[0], {})
    whole = [one for one in replicas if all(one in metrics.get(name, {}) for name in names)]
    return [Report(**{name: metrics[name][one] for name in names}) for one in whole]
