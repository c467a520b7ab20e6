"""Finds out whether every deployment can serve."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from graph.calls import call, gather_all
from graph.errors import ApiError
from graph.registry import Registry

# A deployment also serves requests while Serve changes its number of replicas.
SERVING = {"HEALTHY", "UPSCALING", "DOWNSCALING"}
KEPT_S = 1.0
"""How long a result is kept, so that requests without a key cost little."""
REACH_S = 0.5
"""How long a model is asked; a busy one may need longer, and counts as before."""
CHECK_S = 10.0
"""How long models and codecs that are not known yet may take to describe themselves."""
TRIES = 3
"""How many replicas of a model are tried."""


@dataclass(frozen=True)
class DeploymentState:
    """The state of one deployment."""

    status: str
    """Serve's name of the status, such as HEALTHY."""
    running: int
    """The number of running replicas. A deployment with 0 sleeps: a call would start one."""


States = Callable[[], Awaitable[Mapping[str, DeploymentState]]]


class Readiness:
    """Checks the deployments of the application, at most once in `KEPT_S`.

    Serve's controller notices a dead replica only at its next health check, seconds later. A call
    to the replica fails at once, so models that do not sleep are called as well.
    """

    def __init__(self, registry: Registry, states: States) -> None:
        self._registry, self._states = registry, states
        self._checking = asyncio.Lock()
        self._checked_at = -math.inf
        self._found: Mapping[str, str] | ApiError = {}
        self._lost: set[str] = set()
        """Models whose last answered call found no replica."""

    async def check_deployments(self) -> Mapping[str, str]:
        """Return the status of each deployment. Raises ApiError 503 or 500 if one cannot serve."""
        async with self._checking:
            if time.monotonic() - self._checked_at > KEPT_S:
                try:
                    self._found = await self._read_statuses()
                except ApiError as error:
                    self._found = error
                self._checked_at = time.monotonic()
        if isinstance(self._found, ApiError):
            raise replace(self._found)
        return self._found

    async def _read_statuses(self) -> Mapping[str, str]:
        states = await self._states()
        asleep = {name for name, state in states.items() if not state.running}
        await gather_all(
            self._reach_model(name)
            for name in self._registry.models
            if name in states.keys() - asleep
        )
        waiting = [f"{n} is {s.status}" for n, s in states.items() if s.status not in SERVING]
        waiting += [f"{name} has lost its replicas" for name in sorted(self._lost - asleep)]
        if waiting or not states:
            message = "not ready: " + (", ".join(waiting) or "nothing deployed")
            raise ApiError(503, "not_ready", message)
        try:
            async with asyncio.timeout(CHECK_S):
                await self._registry.check_models(asleep)
        except TimeoutError as error:
            message = f"not ready: a model has not answered in {CHECK_S:g} s"
            raise ApiError(503, "not_ready", message) from error
        return {name: state.status for name, state in states.items()}

    async def _reach_model(self, name: str) -> None:
        """Call a model, and note whether a replica answers."""
        try:
            async with asyncio.timeout(REACH_S):
                for _ in range(TRIES):
                    try:
                        await call(self._registry.handles[name].info)
                    except ApiError:
                        self._lost.add(name)
                    else:
                        self._lost.discard(name)
                        return
        except TimeoutError:
            return
