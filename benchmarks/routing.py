"""Measures the time to first audio with Serve's router and with ours, on simulated engines.

    python -m benchmarks.routing [--requests 2000]

Two applications, side by side, get the same requests at the same times. The steps are those of the
musicgen-small shape in int8 on two cores (`benchmarks/results/decode.md`), sixty times as fast, so
that it takes minutes; times are given as they would be at its own pace.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.serve import Deployment
from ray.serve.handle import DeploymentHandle

from benchmarks.autoscale.fleet import FRAME_RATE, Machine
from benchmarks.autoscale.traces import SECONDS, SHARES
from benchmarks.paced import PacedEngine

REPLICAS, LOAD = 4, 0.8
FASTER = 60.0
"""Speed-up of the simulated machine."""
MACHINE = Machine(slots=4, alone_s=0.045 / FASTER, full_s=0.085 / FASTER)
TO_REACH = 0.7
ROUTERS: dict[str, dict[str, Any]] = {
    "Serve's": {},
    "ours": {
        "request_router_config": {
            "request_router_class": "deployments.scaling.router:FreeSlotRouter",
            "request_router_kwargs": {"slots": MACHINE.slots},
        }
    },
}


@serve.deployment(num_replicas=REPLICAS, max_ongoing_requests=256)
class Paced:
    """A replica of a language model with a simulated engine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._engine: PacedEngine | None = None

    async def record_routing_stats(self) -> dict[str, int]:
        """Return the number of slots for `deployments.scaling.router`."""
        return {"slots": self._machine.slots}

    async def generate(self, seconds: float) -> AsyncGenerator[float, None]:
        """Yield the seconds of audio that are done."""
        self._engine = self._engine or PacedEngine(self._machine)
        async for made in self._engine.generate(seconds):
            yield made


@dataclass(frozen=True)
class Requests:
    """The arrival times of requests, and the seconds of audio that each asks for."""

    at: list[float]
    seconds: list[float]


def draw_requests(number: int, seed: int) -> Requests:
    """Draw requests at the share `LOAD` of the replicas' capacity."""
    draw = np.random.default_rng(seed)
    seconds = draw.choice(SECONDS, p=SHARES, size=number)
    full = REPLICAS * MACHINE.slots / (MACHINE.full_s * FRAME_RATE)
    gaps = draw.exponential(seconds.mean() / (LOAD * full), number)
    return Requests(np.cumsum(gaps).tolist(), seconds.tolist())


async def measure_first_audio(handle: DeploymentHandle, requests: Requests) -> list[float]:
    """Send each request at its time; return the seconds to the first audio of each."""
    begun = time.perf_counter()

    async def send_at(at: float, seconds: float) -> float:
        await asyncio.sleep(begun + at - time.perf_counter())
        stream = handle.options(stream=True).generate.remote(seconds)
        first = 0.0
        async for _ in stream:
            first = first or time.perf_counter()
        return first - begun - at

    return await asyncio.gather(*map(send_at, requests.at, requests.seconds))


def start_application(router: str) -> DeploymentHandle:
    """Start an application that uses this router."""
    deployment: Deployment = Paced
    bound = deployment.options(ray_actor_options={"num_cpus": 0.1}, **ROUTERS[router]).bind(MACHINE)
    return serve.run(bound, name=router, route_prefix=None)


async def measure_routers(requests: Requests) -> list[list[float]]:
    """Send the same requests to each router at the same time; return the times of each."""
    handles = [start_application(router) for router in ROUTERS]
    return await asyncio.gather(*(measure_first_audio(handle, requests) for handle in handles))


def main() -> None:
    """Measure both routers; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    number = parser.parse_args().requests
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=4)
    found = asyncio.run(measure_routers(draw_requests(number, seed=0)))
    print("| router | p50 s | p95 s | p99 s |\n|---|---|---|---|")
    rows: dict[str, Any] = {}
    for router, times in zip(ROUTERS, found, strict=True):
        p50, p95, p99 = np.percentile(times, [50, 95, 99]) * FASTER
        rows[router] = {"p50_s": p50, "p95_s": p95, "p99_s": p99}
        print(f"| {router} | {p50:.2f} | {p95:.2f} | {p99:.2f} |")
    ratio = rows["ours"]["p95_s"] / rows["Serve's"]["p95_s"]
    print(json.dumps({"requests": number, **rows, "p95_ratio": ratio, "to_reach": TO_REACH}))
    ray.shutdown()


if __name__ == "__main__":
    main()
