"""Wraps the compared autoscaling policies: ours and Serve's, called as by Serve, and an oracle."""

import math
from collections import deque
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from ray.serve import autoscaling_policy as serves
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from benchmarks.autoscale.fleet import FRAME_RATE, FleetState, Machine
from benchmarks.autoscale.traces import Trace
from deployments.scaling.policy import Backlog, Report
from deployments.settings import Autoscaling

ROWS = 2
MOST = 10_000


def context(
    config: AutoscalingConfig, running: int, target: int, **more: Any
) -> AutoscalingContext:
    """Return the context that Serve gives a policy for a deployment with so many replicas."""
    given = {
        "deployment_id": None,
        "deployment_name": "music",
        "app_name": "audiocraft",
        "current_num_replicas": running,
        "target_num_replicas": target,
        "running_replicas": [],
        "total_num_requests": 0.0,
        "total_queued_requests": 0.0,
        "aggregated_metrics": {},
        "raw_metrics": {},
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": MOST,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": None,
        "config": config,
    }
    return AutoscalingContext(**given | more)


class LookBackMean:
    """The mean over a look-back period, as last sent to Serve's controller."""

    def __init__(self, look_back_s: float, sent_every_s: float) -> None:
        self._look_back_s, self._every_s = look_back_s, sent_every_s
        self._values: deque[tuple[float, float]] = deque()
        self._sent_at, self._sent = -math.inf, 0.0

    def add_value(self, now: float, value: float) -> float:
        """Add a value; return the mean that Serve's controller knows now."""
        self._values.append((now, value))
        while self._values[0][0] <= now - self._look_back_s:
            self._values.popleft()
        if now - self._sent_at >= self._every_s:
            self._sent_at = now
            self._sent = sum(v for _, v in self._values) / len(self._values)
        return self._sent


class OurPolicy:
    """The policy in `deployments.scaling.policy`, with a deployment's settings."""

    def __init__(self, machine: Machine) -> None:
        settings = Autoscaling(max_replicas=MOST).build_options()
        self._machine = machine
        self._policy = Backlog(lambda: self._now, **settings["policy"]["policy_kwargs"])
        self._config = AutoscalingConfig(**settings)
        # As Serve sends them: each second, the mean of three.
        self._waiting, self._occupied = LookBackMean(3, 1), LookBackMean(3, 1)

    def __call__(self, fleet: FleetState) -> int:
        """Return the number of replicas, as Serve decides with a custom policy."""
        self._now, slots = fleet.now, self._machine.slots
        number, running = len(fleet.running), sum(fleet.running)
        occupied = self._occupied.add_value(fleet.now, running / slots) / max(number, 1)
        step_s = self._machine.step_s(max(round(running / max(number, 1)), 1))
        speed = ROWS * slots / (step_s * FRAME_RATE)
        report = asdict(Report(occupied, 0.0, speed, ROWS * fleet.seconds))
        metrics = {name: dict.fromkeys(range(number), value) for name, value in report.items()}
        waiting = self._waiting.add_value(fleet.now, fleet.waiting)
        ctx = context(
            self._config,
            len(fleet.running),
            fleet.target,
            aggregated_metrics=metrics,
            total_queued_requests=waiting,
        )
        return int(max(serves._apply_autoscaling_config(self._policy)(ctx)[0], 1))


class ServePolicy:
    """Serve's default policy and delays, with `target` requests per replica."""

    def __init__(self, target: float) -> None:
        self._config = AutoscalingConfig(
            min_replicas=1, max_replicas=MOST, target_ongoing_requests=target
        )
        self._decide = serves._apply_autoscaling_config(serves.default_autoscaling_policy)
        self._ongoing = LookBackMean(
            self._config.look_back_period_s, self._config.metrics_interval_s
        )
        self._state: dict[str, Any] = {}

    def __call__(self, fleet: FleetState) -> int:
        """Return the number of replicas, as Serve decides by default."""
        ongoing = self._ongoing.add_value(fleet.now, sum(fleet.running) + fleet.waiting)
        ctx = context(
            self._config,
            len(fleet.running),
            fleet.target,
            total_num_requests=ongoing,
            policy_state=self._state,
        )
        with patch.object(serves, "time", SimpleNamespace(time=lambda: fleet.now)):
            wanted, self._state = self._decide(ctx)
        return int(max(math.ceil(wanted), 1))


class OraclePolicy:
    """A policy that knows all arrivals, and starts the fewest replicas that serve them at once."""

    def __init__(self, machine: Machine, trace: Trace) -> None:
        self._machine = machine
        ends = trace.at + trace.seconds * FRAME_RATE * machine.full_s
        seconds = np.arange(math.ceil(trace.ends) + 600)
        came = np.searchsorted(trace.at, seconds, side="right")
        self._running = came - np.searchsorted(np.sort(ends), seconds, side="right")

    def __call__(self, fleet: FleetState) -> int:
        """Return the most replicas needed until a replica started now is up."""
        until = int(fleet.now + self._machine.start_s) + 2
        most = self._running[int(fleet.now) : until].max(initial=1)
        return int(max(math.ceil(most / self._machine.slots), 1))
