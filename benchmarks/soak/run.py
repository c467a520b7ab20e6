"""The parts of a soak in order: speeds, the rate, the warm-up, the load with kills, the end."""

import asyncio
import itertools
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import psutil

from benchmarks.soak.jobs import JobBook
from benchmarks.soak.mixture import MIX, Send
from benchmarks.soak.processes import (
    VICTIMS,
    Measured,
    find_leaks,
    find_own_ends,
    find_processes,
    measure_processes,
)
from benchmarks.soak.speeds import WITHIN, measure_speed, read_statistics
from benchmarks.soak.traffic import FAILURES, Traffic

CLIENTS = 24
"""Clients that measure the rate, each with one request at a time."""
JOBS_WEIGHT = 12
LONGEST_SPEED_S, LONGEST_RATE_S = 45.0, 60.0
WARM_UP = 1 / 12
"""The share of the time before which nothing is killed and memory is not yet measured."""
QUIET = 1 / 10
"""The share of the time at the end in which nothing is killed."""
KILL_EVERY_S, MOST_KILLS = 30.0, 15
IDLE_S, EVENTS_S, BACK_S = 300.0, 420.0, 400.0
"""Limits for the server to become idle, for events to come, and for a process to come back."""
SAMPLE_S = 15.0
MODELS = ("music", "sound")
"""The models whose speeds are compared."""


class Soak:
    """One soak of a running server."""

    def __init__(self, traffic: Traffic, jobs: JobBook, minutes: float, load: float) -> None:
        self._traffic, self._jobs, self._load = traffic, jobs, load
        self._seconds = 60 * minutes
        self._sends = [*MIX, (jobs.run_job, JOBS_WEIGHT)]
        self._kills: list[dict[str, Any]] = []
        self._samples: list[dict[str, Any]] = []
        self._speeds: list[dict[str, Any]] = []
        self._never_idle: list[str] = []

    async def run(self) -> dict[str, Any]:
        """Run all parts; return what was found."""
        await self._wait_until_idle()
        await self._compare_speeds("at first")
        rate = await self._measure_rate()
        say(f"{rate:.2f} requests/s; {self._load * rate:.2f}/s for {self._seconds / 60:g} minutes")
        warm_up = WARM_UP * self._seconds
        await self._hold_load(self._load * rate, warm_up)
        before = await self._measure_idle({})
        sampling = asyncio.create_task(self._keep_sampling())
        killing = asyncio.create_task(self._keep_killing(self._seconds - warm_up))
        try:
            await self._hold_load(self._load * rate, self._seconds - warm_up)
            await killing
        finally:
            for task in (sampling, killing):
                task.cancel()
            await asyncio.gather(sampling, killing, return_exceptions=True)
        wrong = await self._audit_jobs()
        missing = await self._wait_for_events()
        await self._jobs.delete_all()
        after = await self._measure_idle(before)
        await self._compare_speeds("at the end")
        return self._report(rate, before, after, wrong, missing)

    def _report(
        self,
        rate: float,
        before: dict[str, Measured],
        after: dict[str, Measured],
        wrong: list[str],
        missing: list[str],
    ) -> dict[str, Any]:
        untrue = [
            f"{row['model']} {row['when']}: {row['ratio']}"
            for row in self._speeds
            if not abs(row["ratio"] - 1) <= WITHIN
        ]
        records, receivers = self._jobs.records, self._jobs.receivers
        lost = [f"{one.kind} {one.id}: {one.problem}" for one in records if one.problem]
        forged = [f"{receivers.forged} without a valid signature"] if receivers.forged else []
        criteria = {
            "no job is lost": lost + wrong,
            "every event comes, signed": missing + forged,
            "nothing leaks": find_leaks(before, after),
            "stated speeds are true": untrue,
            "no answer is unexpected": self._traffic.unexpected,
            "the server becomes idle": self._never_idle,
            "no process ends by itself": find_own_ends(
                [before, *(one["processes"] for one in self._samples), after],
                [one["what"] for one in self._kills],
            ),
            "what is killed comes back": [one["what"] for one in self._kills if not one["back_s"]],
        }
        return {
            "requests_per_s": round(rate, 2),
            "jobs": Counter(f"{one.status} {one.reason}".strip() for one in records),
            "events": receivers.events.total(),
            "kills": [one["what"] for one in self._kills],
            "back_s": [one["back_s"] for one in self._kills],
            "before": before,
            "after": after,
            "speeds": self._speeds,
            "outcomes": self._traffic.outcomes,
            "criteria": criteria,
            "samples": self._samples,
        }

    async def _compare_speeds(self, when: str) -> None:
        seconds = min(LONGEST_SPEED_S, self._seconds / 8)
        for model in MODELS:
            row = await measure_speed(self._traffic, model, seconds)
            self._speeds.append({"model": row.pop("model"), "when": when, **row})
            say(str(self._speeds[-1]))

    def _draw_send(self) -> Send:
        sends, weights = zip(*self._sends, strict=True)
        (send,) = self._traffic.draw.choices(sends, weights)
        chosen: Send = send
        return chosen

    async def _measure_rate(self) -> float:
        """Return the requests of the mix in a second that a fixed number of clients get answered.

        What is refused does not count.
        """
        seconds = min(LONGEST_RATE_S, self._seconds / 6)
        end, done = time.monotonic() + seconds, 0

        async def run_client() -> None:
            nonlocal done
            while time.monotonic() < end:
                refused = self._count_refused()
                await self._send_one()
                done += time.monotonic() < end
                if self._count_refused() > refused:
                    await asyncio.sleep(1)

        before = self._count_refused()
        await asyncio.gather(*(run_client() for _ in range(CLIENTS)))
        return (done - self._count_refused() + before) / seconds

    def _count_refused(self) -> int:
        return sum(
            times for (_, outcome), times in self._traffic.outcomes.items() if outcome == "429"
        )

    async def _hold_load(self, rate: float, seconds: float) -> None:
        """Send requests at random times, and wait until all are answered and all jobs ended."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while (due := due + self._traffic.draw.expovariate(rate)) < end:
                await asyncio.sleep(due - time.monotonic())
                tasks.create_task(self._send_one())

    async def _send_one(self) -> None:
        send = self._draw_send()
        try:
            await send(self._traffic)
        except Exception as error:  # noqa: BLE001 - a mistake of the soak ends one request only
            self._traffic.unexpected.append(f"{send}: {error!r}")

    async def _keep_sampling(self) -> None:
        begun = time.monotonic()
        while True:
            memory = await asyncio.to_thread(measure_processes, time.time())
            self._samples.append({"s": round(time.monotonic() - begun), "processes": memory})
            with suppress(*FAILURES):
                found = await read_statistics(self._traffic)
                speeds = {k: one["row_seconds_per_second"] for k, one in found["backlog"].items()}
                self._samples[-1] |= {"speeds": speeds}
            await asyncio.sleep(SAMPLE_S)

    async def _keep_killing(self, seconds: float) -> None:
        """Kill processes in turn; the next one only after the last one is back."""
        end = time.monotonic() + seconds - QUIET * self._seconds
        every = max(KILL_EVERY_S, seconds / MOST_KILLS)
        for what in itertools.cycle(VICTIMS):
            await asyncio.sleep(every * 0.5)
            if time.monotonic() > end:
                return
            self._kills.append({"what": what, "back_s": await self._kill(what)})
            say(f"killed {what}, back after {self._kills[-1]['back_s']} s")
            await asyncio.sleep(every * 0.5)

    async def _kill(self, what: str) -> float | None:
        """Kill a process; return the seconds until another one works, or None."""
        victim = await find_process(what)
        begun = time.monotonic()
        self._traffic.killed_at.append(begun)
        victim.kill()
        while time.monotonic() < begun + BACK_S:
            await asyncio.sleep(1)
            self._traffic.killed_at[-1] = time.monotonic()
            new = find_processes().get(what)
            if new is None or new == victim:
                continue
            with suppress(*FAILURES):
                status, _ = await self._traffic.send("GET", "/readyz")
                if status == 200:
                    return round(time.monotonic() - begun, 1)
        return None

    async def _audit_jobs(self) -> list[str]:
        """Look at all jobs once more; return what is wrong with the list of all jobs."""
        for record in self._jobs.records:
            if not record.problem and record.status != "deleted":
                await self._jobs.check_again(record)
        return await self._jobs.find_wrong_ids()

    async def _wait_for_events(self) -> list[str]:
        end = time.monotonic() + EVENTS_S
        while True:
            missing = self._jobs.find_missing_events()
            if not missing or time.monotonic() > end:
                return missing
            await asyncio.sleep(1)

    async def _wait_until_idle(self) -> None:
        end = time.monotonic() + IDLE_S
        while time.monotonic() < end:
            found = await read_statistics(self._traffic)
            loads = found["models"].values()
            busy = [one for one in loads if one.get("running") or one.get("busy")]
            left = [one for one in found["backlog"].values() if one["requests"]]
            if not busy and not left and all(loads):
                return
            await asyncio.sleep(1)
        self._never_idle.append(f"not after {IDLE_S:g} s: {busy} {left}")

    async def _measure_idle(self, before: dict[str, Measured]) -> dict[str, Measured]:
        """Measure all processes once they are idle, and until nothing is above `before`."""
        await self._wait_until_idle()
        end = time.monotonic() + IDLE_S
        while True:
            measured = await asyncio.to_thread(measure_processes, time.time())
            if not find_leaks(before, measured) or time.monotonic() > end:
                return measured
            await asyncio.sleep(5)


async def find_process(what: str) -> psutil.Process:
    """Return the process of a deployment, once there is one."""
    while True:
        if found := find_processes().get(what):
            return found
        await asyncio.sleep(1)


def say(line: str) -> None:
    """Print a line at once, with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)
