"""Finds out whether every deployment can serve."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

from ray.serve.schema import DeploymentDetails
from ray.util import list_named_actors

from deployments.ray_private import read_deployments
from graph.errors import ApiError
from graph.registry import Registry

# A deployment also serves requests while Serve changes its number of replicas.
SERVING = {"HEALTHY", "UPSCALING", "DOWNSCALING"}
KEPT_S = 1.0
"""How long a result is kept, so that requests without a key cost little."""
CHECK_S = 10.0
"""How long Ray may take to report, and models that are not known yet to describe themselves."""


@dataclass(frozen=True)
class DeploymentState:
    """The state of one deployment."""

    status: str
    """Serve's name of the status, such as HEALTHY."""
    running: int
    """The number of running replicas. A deployment with 0 sleeps, unless replicas were lost."""
    lost: int = 0
    """The number of replicas that have ended, but that Serve's controller counts as running."""


States = Callable[[], Awaitable[Mapping[str, DeploymentState]]]


def read_states(application: str) -> Mapping[str, DeploymentState]:
    """Return the state of each deployment, by name. It blocks while it asks Serve and Ray.

    Serve's controller notices a lost replica only at its next health check, seconds later. Ray
    knows at once that a process has ended, and a replica that is only busy has not.
    """
    deployments = read_deployments(application)
    live = {actor["name"] for actor in list_named_actors(all_namespaces=True)}
    return {name: count_replicas(details, live) for name, details in deployments.items()}


def count_replicas(details: DeploymentDetails, live: Collection[str]) -> DeploymentState:
    """Count the replicas of a deployment; `live` names all actors that have not ended."""
    counted = [one.actor_name for one in details.replicas if one.state == "RUNNING"]
    lost = sum(name not in live for name in counted)
    return DeploymentState(details.status.value, len(counted) - lost, lost)


class Readiness:
    """Checks the deployments of the application, at most once in `KEPT_S`."""

    def __init__(self, registry: Registry, states: States) -> None:
        self._registry, self._states = registry, states
        self._checking = asyncio.Lock()
        self._checked_at = -math.inf
        self._found: Mapping[str, str] | ApiError = {}

    async def check_deployments(self) -> Mapping[str, str]:
        """Return the status of each deployment. Raises ApiError 503 or 500 if one cannot serve."""
        async with self._checking:
            if time.monotonic() - self._checked_at > KEPT_S:
                try:
                    async with asyncio.timeout(CHECK_S):
                        self._found = await self._read_statuses()
                except TimeoutError:
                    message = f"not ready: Serve or a model has not answered in {CHECK_S:g} s"
                    self._found = ApiError(503, "not_ready", message)
                except ApiError as error:
                    self._found = error
                self._checked_at = time.monotonic()
        if isinstance(self._found, ApiError):
            raise replace(self._found)
        return self._found

    async def _read_statuses(self) -> Mapping[str, str]:
        states = await self._states()
        waiting = [f"{n} is {s.status}" for n, s in states.items() if s.status not in SERVING]
        waiting += [f"{n} has lost {_name_replicas(s)}" for n, s in states.items() if s.lost]
        if waiting or not states:
            message = "not ready: " + (", ".join(waiting) or "nothing deployed")
            raise ApiError(503, "not_ready", message)
        await self._registry.check_models({n for n, s in states.items() if not s.running})
        return {name: state.status for name, state in states.items()}


def _name_replicas(state: DeploymentState) -> str:
    total = state.running + state.lost
    return "its only replica" if total == 1 else f"{state.lost} of {total} replicas"
