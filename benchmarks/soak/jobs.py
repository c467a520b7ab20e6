"""Jobs of a soak: submitted, cancelled, deleted, awaited, fetched, and counted at the end."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from benchmarks.soak.mixture import DURATIONS, build_form, draw_file
from benchmarks.soak.receivers import Receivers
from benchmarks.soak.traffic import FAILURES, REFUSED, Traffic

SUBMIT_S, END_S, LOOK_S = 180.0, 600.0, 2.0
"""Seconds for an answer, for a job to end, and between two looks at it."""
ENDED = ("finished", "failed", "cancelled")
PAGE = 100
KEY = "batch"
Fate = Literal["wait", "cancel", "delete"]


@dataclass
class JobRecord:
    """An accepted job, and what became of it."""

    id: str
    kind: str
    fate: Fate
    webhook: str | None
    accepted: float
    """The time of `time.monotonic`."""
    status: str = "accepted"
    took_s: float = 0.0
    reason: str = ""
    """Why it failed, as the server says."""
    problem: str = ""
    """Why it is lost."""

    @contextmanager
    def note_problems(self) -> Iterator[None]:
        """Note errors of the client as why the job is lost."""
        try:
            yield
        except FAILURES as error:
            self.problem = f"{type(error).__name__}: {error}"


@dataclass
class JobBook:
    """All accepted jobs of a soak."""

    traffic: Traffic
    receivers: Receivers
    records: list[JobRecord] = field(default_factory=list)

    async def run_job(self, traffic: Traffic) -> None:
        """Submit a job, and follow it to its end."""
        assert traffic is self.traffic
        draw = traffic.draw
        fate: Fate = draw.choices(("wait", "cancel", "delete"), (6, 2, 1))[0]
        webhook = draw.choice((None, self.receivers.alive, *self.receivers.dead))
        async with traffic.note_outcome("job, submitted", [202]) as noted:
            noted.status, noted.body, kind = await self._submit_job(draw_job(draw), webhook)
            if noted.status != 202:
                return
        id_ = json.loads(noted.body)["id"]
        record = JobRecord(id_, kind, fate, webhook, time.monotonic())
        self.records.append(record)
        await self.follow_job(record, draw.uniform(0, 8))

    async def _submit_job(
        self, body: dict[str, Any], webhook: str | None
    ) -> tuple[int, bytes, str]:
        """Submit a job until it is accepted or refused; the key makes it one job."""
        body |= {"webhook": webhook} if webhook else {}
        headers, end = {"idempotency-key": str(uuid4())}, time.monotonic() + SUBMIT_S
        upload = body.pop("upload", None)
        while True:
            given = {"data": build_form(**upload, **body)} if upload else {"json": body}
            try:
                status, answer = await self.traffic.send(
                    "POST", "/v1/jobs", KEY, headers=headers, **given
                )
                if status < 500 or time.monotonic() > end:
                    return status, answer, body["type"]
            except FAILURES:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(LOOK_S)

    async def _send(self, method: str, path: str) -> tuple[int, bytes]:
        while True:
            status, body = await self.traffic.send_surely(
                method, f"/v1/jobs/{path}", SUBMIT_S, key=KEY
            )
            if status != REFUSED:
                return status, body
            await asyncio.sleep(LOOK_S)

    async def follow_job(self, record: JobRecord, after_s: float) -> None:
        """Cancel or delete a job after some seconds, or wait for its end; note what is wrong."""
        with record.note_problems():
            await self._follow_job(record, after_s)

    async def _follow_job(self, record: JobRecord, after_s: float) -> None:
        if record.fate != "wait":
            await asyncio.sleep(after_s)
        if record.fate == "delete":
            status, body = await self._send("DELETE", record.id)
            gone, _ = await self._send("GET", record.id)
            record.status = "deleted"
            if (status, gone) != (204, 404):
                record.problem = f"deleted: {status} {body[:200]!r}, then {gone}"
            return
        if record.fate == "cancel":
            status, body = await self._send("POST", f"{record.id}/cancel")
            if status != 200:
                record.problem = f"cancel: {status} {body[:200]!r}"
        end = time.monotonic() + END_S
        while record.status not in ENDED:
            await self._look(record)
            if record.problem:
                return
            if time.monotonic() > end:
                record.problem = f"{record.status} after {END_S:g} s"
                return
            await asyncio.sleep(LOOK_S * (record.status not in ENDED))
        record.took_s = time.monotonic() - record.accepted

    async def _look(self, record: JobRecord) -> None:
        """Read the job's state, and its answer if it has one."""
        status, body = await self._send("GET", record.id)
        if status != 200:
            record.problem = f"GET: {status} {body[:200]!r}"
            return
        job = json.loads(body)
        before, record.status = record.status, job["status"]
        if before in ENDED and before != record.status:
            record.problem = f"{before}, then {record.status}"
        if record.status == "failed":
            error = job["error"] or {}
            record.reason = f"{error.get('code')}: {error.get('message')}"
            if not error.get("message"):
                record.problem = "failed without a reason"
        if record.status == "cancelled" and record.fate != "cancel":
            record.problem = "cancelled, and not by us"
        if record.status == "finished":
            status, answer = await self._send("GET", f"{record.id}/audio")
            if status != 200 or not answer:
                record.problem = f"the answer: {status} {answer[:200]!r}"

    async def check_again(self, record: JobRecord) -> None:
        """Check that an ended job is still what it was, and its answer still there."""
        with record.note_problems():
            await self._look(record)

    async def _list_ids(self) -> Counter[str]:
        """Return how often each job is in the list of all jobs. Raises one of `FAILURES`."""
        found: Counter[str] = Counter()
        cursor: str | None = ""
        while cursor is not None:
            after = f"&cursor={cursor}" if cursor else ""
            status, body = await self._send("GET", f"?limit={PAGE}{after}")
            if status != 200:
                raise TimeoutError(f"the list of jobs: {status} {body[:200]!r}")
            page = json.loads(body)
            found.update(job["id"] for job in page["jobs"])
            cursor = page["next_cursor"]
        return found

    async def find_wrong_ids(self) -> list[str]:
        """Return the jobs that are listed and were not accepted, or are not listed or twice."""
        try:
            listed = await self._list_ids()
        except FAILURES as error:
            return [str(error)]
        wanted = Counter(one.id for one in self.records if one.status != "deleted")
        wrong = (listed - wanted) + (wanted - listed)
        return [f"{name}: listed {listed[name]} times" for name in wrong]

    def find_missing_events(self) -> list[str]:
        """Return the events that the living receiver should have and has not."""
        ends = (
            f"{one.id}.{one.status}"
            for one in self.records
            if one.webhook == self.receivers.alive and one.status in ENDED
        )
        return [name for name in ends if not self.receivers.events[name]]

    async def delete_all(self) -> None:
        """Delete every job, so that no event is sent any more."""
        for record in self.records:
            with record.note_problems():
                await self._send("DELETE", record.id)


def draw_job(draw: random.Random) -> dict[str, Any]:
    """Draw the body of a job; `upload` holds the file of a form."""
    seconds = draw.choice(DURATIONS[:3])
    bodies: list[dict[str, Any]] = [
        {"type": "generation", "prompt": "calm piano", "duration": seconds},
        {"type": "generation", "prompt": "rain", "model": "sound", "duration": seconds, "n": 2},
        {"type": "ambience", "environment": "forest", "duration": seconds},
        {"type": "podcast", "theme": "jazz", "intro": 2, "outro": 1, "transitions": 1},
        {
            "type": "song",
            "sections": [{"name": "verse", "prompt": "folk", "bars": 1}] * 2,
            "effects": [{"prompt": "bell", "at": 0.5, "duration": 1}],
        },
        {"type": "decode", "codes": [[draw.randrange(512) for _ in range(100)]] * 4},
        {"type": "encode", "upload": {"field": "audio_file", "data": draw_file(draw)}},
    ]
    return draw.choice(bodies)
