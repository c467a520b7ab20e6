"""What holds for every route that makes or reads audio: keys, events, jobs, admission."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from deployments.ledger_state import Charge
from tests.api.tasks.conftest import AUDIO, Everything
from tests.waiting import until_async

FILE = {"audio_file": ("a.wav", AUDIO)}
CODES = {"codes": [[1, 2, 3, 4] * 10, [5, 6, 7, 8] * 10]}
SECTIONS = [{"name": "one", "prompt": "calm piano", "bars": 1}]
SONG = {"sections": SECTIONS, "tempo": 240, "seed": 3}


@dataclass(frozen=True)
class Route:
    """A request, and the type of the job that does the same."""

    path: str
    sent: dict[str, Any]
    job: str | None = None

    def as_job(self) -> dict[str, Any]:
        """Return the request as a job's."""
        if "json" in self.sent:
            return {"json": self.sent["json"] | {"type": self.job}}
        return self.sent | {"data": self.sent.get("data", {}) | {"type": self.job}}


ROUTES = [
    Route("/generate/music", {"json": {"text": "calm piano", "duration": 1, "seed": 3}}),
    Route("/generate/audio", {"json": {"text": "rain", "duration": 1, "seed": 3}}),
    Route("/v1/audio/speech", {"json": {"input": "a", "duration": 1, "model": "music"}}),
    Route("/v1/sound-generation", {"json": {"text": "rain", "duration_seconds": 1}}),
    Route(
        "/v1/generations", {"json": {"prompt": "a", "duration": 1, "seed": 3}}, "generation"
    ),
    Route("/v1/workflows/song", {"json": SONG}, "song"),
    Route("/v1/workflows/ambience", {"json": {"prompt": "rain", "duration": 1, "seed": 3}},
          "ambience"),
    Route(
        "/v1/workflows/podcast",
        {"json": {"theme": "jazz", "intro": 1, "outro": 1, "transitions": 0, "seed": 3}},
        "podcast",
    ),
    Route(
        "/v1/workflows/style-transfer",
        {"data": {"style": "brass", "seed": "3"}, "files": {"content": ("a.wav", AUDIO)}},
        "style_transfer",
    ),
    Route("/v1/codec/encode", {"files": FILE}, "encode"),
    Route("/v1/codec/decode", {"json": CODES}, "decode"),
    Route("/v1/mbd/regenerate", {"files": FILE, "data": {"seed": "3"}}, "regenerate"),
    Route("/analyze", {"files": FILE}, "analyze"),
]  # fmt: skip
IDS = [route.path for route in ROUTES]
JOBS = [route for route in ROUTES if route.job]


def events(text: str) -> list[tuple[str, Any]]:
    """Return the events of a stream, without comments."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def work(everything: Everything) -> int:
    """Return how many calls the models and the media deployment have had."""
    decoded = everything.media.calls.count("decode")
    return len(everything.music.seen) + len(everything.sound.seen) + decoded


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
async def test_a_request_with_a_key_is_run_once(everything: Everything, route: Route):
    everything.service.limits = everything.service.limits.model_copy(update={"cache_bytes": 0})
    headers = {"idempotency-key": "order 1"}
    first = await everything.http.post(route.path, **route.sent, headers=headers)
    assert first.status_code == 200, first.text
    assert "content-length" in first.headers, "it is answered whole"
    done = work(everything)
    again = await everything.http.post(route.path, **route.sent, headers=headers)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert work(everything) == done


async def test_a_key_belongs_to_its_route(everything: Everything):
    body, headers = {"text": "rain", "duration": 1}, {"idempotency-key": "order 1"}
    first = await everything.http.post("/generate/music", json=body, headers=headers)
    other = await everything.http.post("/generate/audio", json=body, headers=headers)
    assert (first.status_code, other.status_code) == (200, 422)
    assert other.json()["error"]["code"] == "idempotency_conflict"


def answer_of(event: dict[str, Any], whole: httpx.Response) -> tuple[Any, Any]:
    """Return what the last event brought, and the same of the whole answer."""
    if whole.headers["content-type"] == "application/json":
        return event, whole.json()
    audio = event["audio"] if "audio" in event else event["clips"][0].get("audio")
    return base64.b64decode(audio) if audio else None, whole.content


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
async def test_every_request_can_be_answered_with_events(everything: Everything, route: Route):
    accept = {"accept": "text/event-stream"}
    answer = await everything.http.post(route.path, **route.sent, headers=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    name, last = found[-1]
    assert name == "done"
    audio = b"".join(base64.b64decode(one["audio"]) for name, one in found if name == "audio")
    if (
        "seed" not in str(route.sent)
        and "file" not in str(route.sent)
        and "codes" not in str(route.sent)
    ):
        assert audio.startswith((b"\xff\xfb", b"ID3"))
        return
    whole = await everything.http.post(route.path, **route.sent)
    streamed, expected = answer_of(last, whole)
    assert (streamed or audio) == expected


@pytest.mark.parametrize("route", JOBS, ids=[str(route.job) for route in JOBS])
async def test_every_task_can_be_a_job(everything: Everything, route: Route):
    accepted = await everything.http.post("/v1/jobs", **route.as_job())
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert job["type"] == route.job

    async def ended() -> dict[str, Any] | None:
        found = (await everything.http.get(f"/v1/jobs/{job['id']}")).json()
        return found if found["status"] in ("finished", "failed") else None

    found: dict[str, Any] = await until_async(ended, 30)
    assert found["status"] == "finished", found
    assert found["progress"] == 1
    direct = await everything.http.post(route.path, **route.sent)
    made = await everything.http.get(found["audio"])
    assert made.headers["content-type"] == direct.headers["content-type"]
    assert made.content == direct.content


async def test_jobs_of_several_types_are_accepted_together(everything: Everything):
    bodies = [SONG | {"type": "song"}, CODES | {"type": "decode"}, {"prompt": "a", "duration": 1}]
    answer = await everything.http.post("/v1/jobs", json=bodies)
    assert [job["type"] for job in answer.json()["jobs"]] == ["song", "decode", "generation"]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"type": "opera"}, None, "type: valid values are generation, song"),
        ({"type": "song"}, "sections", "Field required"),
        ({"type": "analyze"}, "audio_file", "a file is required"),
        ({"type": "song", "sections": SECTIONS, "loops": 1}, "loops", "unknown key 'loops'"),
        ([{"prompt": "a"}, {"prompt": "a", "duration": -1}], "1.duration", "allowed: from 0.02"),
    ],
)
async def test_a_job_is_checked_when_it_is_accepted(
    everything: Everything, body: Any, param: str | None, message: str
):
    answer = await everything.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]


UPLOADS = [route for route in ROUTES if "files" in route.sent]
CONTINUE = Route(
    "/v1/generations",
    {"data": {"prompt": "a", "duration": "3"}, "files": {"continue_from": ("a.wav", AUDIO)}},
    "generation",
)


@pytest.mark.parametrize("route", [*UPLOADS, CONTINUE], ids=lambda route: route.path)
async def test_an_upload_is_not_decoded_before_admission(everything: Everything, route: Route):
    everything.service.limits = everything.service.limits.model_copy(
        update={"local_row_seconds": 1.0}
    )
    everything.ledger.reached = False
    everything.service.ledger.open["other"] = Charge("other", 1.0, "music", 100.0)
    refused = await everything.http.post(route.path, **route.sent)
    assert refused.status_code == 429
    assert everything.media.calls == ["probe"]
    del everything.service.ledger.open["other"]
    assert (await everything.http.post(route.path, **route.sent)).status_code == 200
    assert everything.media.calls == ["probe", "probe", "decode"]


async def test_a_refused_job_decodes_its_upload_once(
    everything: Everything, monkeypatch: pytest.MonkeyPatch
):
    refusals, admission = 0, everything.service.executor.admission
    admit = everything.ledger.accounts.admit

    def refuse(ingress: str, number: str, charge: Charge, *rest: Any) -> Any:
        nonlocal refusals
        verdict = admit(ingress, number, charge, *rest)
        if refusals < 3:
            refusals += 1
            everything.ledger.accounts.settle(ingress, number, charge.row_seconds)
            return type(verdict)("busy", 0.01)
        return verdict

    monkeypatch.setattr(everything.ledger.accounts, "admit", refuse)
    assert admission
    job = (await everything.http.post("/v1/jobs", **CONTINUE.as_job())).json()

    async def finished() -> bool:
        found = (await everything.http.get(f"/v1/jobs/{job['id']}")).json()
        assert found["status"] != "failed", found
        return bool(found["status"] == "finished")

    await until_async(finished, 30)
    assert refusals == 3
    assert everything.media.calls.count("decode") == 1


async def test_a_models_charge_ends_with_its_stage(everything: Everything):
    """The sound of a song is charged while it is made, and not until the song's end."""
    effects = [{"prompt": "thunder", "at": 0, "duration": 0.5}]
    settled: list[str] = []
    settle, accounts = everything.ledger.accounts.settle, everything.ledger.accounts

    def noted(ingress: str, number: str, left: float) -> None:
        charge = accounts._state.ingresses[ingress].charges.get(number)
        if charge:
            settled.append(charge.model)
        settle(ingress, number, left)

    accounts.settle = noted  # type: ignore[method-assign]
    two = [*SECTIONS, {"name": "two", "prompt": "loud piano", "bars": 2}]
    body = SONG | {"sections": two, "effects": effects}
    answer = await everything.http.post("/v1/workflows/song", json=body)
    assert answer.status_code == 200, answer.text
    await everything.service.ledger.wait_for_calls()
    assert [model for model in settled if model != "codec"] == ["sound", "music"]
