"""Decides how many replicas a deployment needs, from the running and waiting work.

Serve's own policy counts requests with a delay of 30 s. This policy adds replicas immediately if
replicas are full or the queue would start too late, and removes them after a delay.
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
"""A deployment that needs fewer replicas than this is idle."""


@dataclass(frozen=True)
class Report:
    """The load of one replica, as its `record_autoscaling_stats` returns it.

    Work is measured in row-seconds for a token model, and in seconds of audio for other models.
    """

    occupied: float
    """The share of the replica's capacity that is in use, 0 to 1."""
    queued: float
    """The work in the replica's queue."""
    speed: float
    """The work per second of a full replica."""
    request: float
    """The mean work of recent requests."""


@dataclass(frozen=True)
class ScalingTargets:
    """The targets for the scaling of one deployment."""

    start_within_s: float
    """The time in which waiting requests shall start, once the replicas are up."""
    patience_s: float
    """How long replicas are kept after they were needed."""
    idle_s: float
    """The idle time after which the last replica is removed, if the minimum is 0."""
    occupancy: float = 0.9
    """The share of capacity to use; the rest serves new requests while replicas start."""


def compute_needed_replicas(
    reports: Sequence[Report], waiting: float, targets: ScalingTargets
) -> float:
    """Return the replicas that the running and the waiting work needs now.

    `waiting` is the number of requests that no replica has received.
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
    """The recent needs for replicas; a need is dropped when a later one is at least as large."""

    needs: list[tuple[float, float]]
    """Pairs of a time and a number of replicas, with falling numbers."""
    busy_at: float
    """The last time at which there was work."""

    def add_need(self, now: float, replicas: float, patience_s: float) -> float:
        """Add the present need; return the largest need within the last `patience_s` seconds."""
        lately = [(at, n) for at, n in self.needs if at > now - patience_s and n > replicas]
        self.needs = [*lately, (now, replicas)]
        if replicas > IDLE:
            self.busy_at = now
        return self.needs[0][1]


def decide_replicas(
    recent: RecentNeeds, now: float, replicas: float, targets: ScalingTargets
) -> int:
    """Return the number of replicas to run, from the present need and the recent needs."""
    kept = math.ceil(recent.add_need(now, replicas, targets.patience_s) - 1e-9)
    idle = now - recent.busy_at > targets.idle_s
    return 0 if idle else max(kept, 1)


class Backlog:
    """The autoscaling policy that Serve's controller creates for each deployment.

    It never raises an error, since Serve's loop would stop for all applications.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, **targets: float) -> None:
        self._targets, self._clock = ScalingTargets(**targets), clock
        self._recent: RecentNeeds | None = None

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas to run; after an error, the present target."""
        try:
            return self._decide_replicas(ctx), {}
        except Exception:  # an error would stop Serve's loop
            logger.exception("cannot compute the number of replicas of %s", ctx.deployment_name)
            return int(ctx.target_num_replicas), {}

    def _decide_replicas(self, ctx: AutoscalingContext) -> int:
        now = self._clock()
        # A new controller has no history, so it assumes that the present replicas are needed.
        target = float(ctx.target_num_replicas)
        recent = self._recent or RecentNeeds([(now, target)], now if target else -math.inf)
        self._recent = recent
        reports = collect_reports(ctx.aggregated_metrics or {})
        if ctx.current_num_replicas and not reports:
            # Replicas without a report are new. Serve also starts one by itself when a request
            # finds none, so they count as busy.
            recent.busy_at = now
            return int(ctx.target_num_replicas)
        replicas = compute_needed_replicas(reports, ctx.total_queued_requests or 0.0, self._targets)
        return decide_replicas(recent, now, replicas, self._targets)


def collect_reports(metrics: Mapping[str, Mapping[Any, float]]) -> list[Report]:
    """Return the reports of all replicas that sent every value, from values by name and replica."""
    names = [field.name for field in fields(Report)]
    replicas = metrics.get(names[0], {})
    whole = [one for one in replicas if all(one in metrics.get(name, {}) for name in names)]
    return [Report(**{name: metrics[name][one] for name in names}) for one in whole]
