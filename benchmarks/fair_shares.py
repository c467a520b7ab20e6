"""Simulates two keys at twice the capacity, to measure shares, waits and `Retry-After`.

`python -m benchmarks.fair_shares` runs the real accounts (`deployments/accounts.py`) in simulated
time; no model and no server runs. The engine of the simulation has slots that work at a fixed speed
and take requests by their turns. Each client asks for a clip, waits as long as a refusal says, and
asks again; after its clip it asks for the next one at once. There are so many clients that twice
the work is wanted that can start in time. It prints a table, then one line of JSON.
"""

import argparse
import heapq
import itertools
import json
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from deployments.accounts import Accounts, Verdict
from deployments.capacity import Capacity, Patience
from deployments.ledger_state import Charge, Share

TICK_S, BEAT_S, LATENCY_S = 0.05, 1.0, 0.03
INGRESS = "ingress"


@dataclass
class Clip:
    """An admitted request of the simulation."""

    number: str
    charge: Charge
    verdict: Verdict
    admitted_at: float
    left: float


class Simulation:
    """Runs clients, accounts and slots in simulated time."""

    def __init__(
        self, slots: int, speed: float, max_wait_s: float, lengths: list[float], seed: int
    ) -> None:
        self.now, self._lengths = 1000.0, lengths
        self.accounts = Accounts(lambda: self.now, lambda: self.now)
        self.patience = Patience(max_wait_s, Capacity(slots, speed))
        self.per_slot, self.slots = speed / slots, slots
        self._random, self._numbers = random.Random(seed), itertools.count()
        self._asking: list[tuple[float, int, Share, float | None]] = []
        """When clients ask, with their key; the price of those that come back after a refusal."""
        self._waiting: list[tuple[float, int, Clip]] = []
        self.running: list[Clip] = []
        self.served: Counter[str] = Counter()
        self.came_back: Counter[bool] = Counter()
        self.start_waits: list[float] = []
        self.refusals: Counter[str] = Counter()

    def add_clients(self, share: Share, clients: int) -> None:
        """Add clients of one key, which begin within ten seconds."""
        for _ in range(clients):
            at = self.now + self._random.uniform(0, 10)
            heapq.heappush(self._asking, (at, next(self._numbers), share, None))

    def run(self, seconds: float, *, measured: bool) -> None:
        """Simulate so many seconds; count what happens only if `measured`."""
        end, beat = self.now + seconds, self.now
        while self.now < end:
            while self._asking and self._asking[0][0] <= self.now:
                _, _, share, price = heapq.heappop(self._asking)
                self._ask(share, price, measured)
            self._serve(measured)
            if self.now >= beat:
                beat += BEAT_S
                self.accounts.renew_charges(INGRESS, self._list_open())
            self.now += TICK_S

    def _ask(self, share: Share, refused: float | None, measured: bool) -> None:
        number = str(next(self._numbers))
        price = refused or 2 * self._random.uniform(*self._lengths)
        charge = Charge(share.name, share.weight, "music", price)
        verdict = self.accounts.admit(INGRESS, number, charge, share, self.patience)
        if measured and refused:
            self.came_back[verdict.admitted] += 1
        if verdict.admitted:
            clip = Clip(number, charge, verdict, self.now, price)
            heapq.heappush(self._waiting, (verdict.turn, int(number), clip))
            return
        if measured:
            self.refusals[share.name] += 1
        at = self.now + max(1, math.ceil(verdict.wait_s)) + LATENCY_S
        heapq.heappush(self._asking, (at, int(number), share, price))

    def _serve(self, measured: bool) -> None:
        while self._waiting and len(self.running) < self.slots:
            clip = heapq.heappop(self._waiting)[2]
            self.running.append(clip)
            if measured:
                self.start_waits.append(self.now - clip.admitted_at)
        for clip in self.running:
            clip.left -= self.per_slot * TICK_S
            if measured:
                self.served[clip.charge.key] += self.per_slot * TICK_S  # type: ignore[assignment]
        for clip in [clip for clip in self.running if clip.left <= 0]:
            self.running.remove(clip)
            self.accounts.settle(INGRESS, clip.number, 0.0)
            share = Share(clip.charge.key, clip.charge.weight)
            at = self.now + LATENCY_S
            heapq.heappush(self._asking, (at, next(self._numbers), share, None))

    def _list_open(self) -> dict[str, Charge]:
        clips = [*self.running, *(clip for *_, clip in self._waiting)]
        return {clip.number: replace(clip.charge, row_seconds=max(clip.left, 0)) for clip in clips}


def measure_keys(
    weights: dict[str, float],
    slots: int,
    speed: float,
    max_wait_s: float,
    lengths: list[float],
    minutes: float,
    seed: int,
) -> dict[str, Any]:
    """Simulate keys of these weights at twice the capacity; return the figures."""
    simulation = Simulation(slots, speed, max_wait_s, lengths, seed)
    # So many clips run or start in time; twice as many clients ask.
    clients = math.ceil(2 * (slots + speed * max_wait_s / sum(lengths)) / len(weights))
    for name, weight in weights.items():
        simulation.add_clients(Share(name, weight), clients)
    simulation.run(600, measured=False)
    simulation.run(60 * minutes, measured=True)
    served, waits = simulation.served, sorted(simulation.start_waits)
    total = sum(served.values())
    by_weight = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    return {
        "clients": clients * len(weights),
        "shares": {name: round(served[name] / total, 3) for name in weights},
        "by_weight": {name: round(part, 3) for name, part in by_weight.items()},
        "share_error": round(max(abs(served[n] / total / by_weight[n] - 1) for n in weights), 3),
        "came_back": sum(simulation.came_back.values()),
        "let_in": round(simulation.came_back[True] / max(sum(simulation.came_back.values()), 1), 3),
        "of_capacity": round(total / (60 * minutes * speed), 3),
        "start_p50_s": round(waits[len(waits) // 2], 1),
        "start_p99_s": round(waits[int(0.99 * len(waits))], 1),
        "start_most_s": round(waits[-1], 1),
    }


def main() -> None:
    """Simulate the chosen load; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--speed", type=float, default=40.0, help="row-seconds per second")
    parser.add_argument("--max-wait-s", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--lengths", nargs=2, type=float, default=[1.0, 10.0], help="of clips, in s"
    )
    options = parser.parse_args()
    weights = {f"key {number + 1}": weight for number, weight in enumerate(options.weights)}
    load = options.slots, options.speed, options.max_wait_s, options.lengths
    found = measure_keys(weights, *load, options.minutes, options.seed)
    for name, value in found.items():
        print(f"{name:>14}  {value}")
    print(json.dumps({**vars(options), **found}))


if __name__ == "__main__":
    main()
