"""Jobs over HTTP: accepted, looked at, cancelled, fetched, and done whatever happens."""

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray.serve.context import _get_serve_request_context

from api.audio import codes_file
from api.keys import EVERYONE
from api.settings import WEBHOOK_SECRETS, KeySettings, UserConfig
from deployments.ledger_state import Charge
from engine.params import CodecInfo, Codes
from graph.jobs.job import Job
from graph.jobs.store import NewJob, Work
from launch.start import LaunchError, check_environment
from tests.api.jobs.conftest import BODY, Kept, Working, made, working_in
from tests.api.test_admission import hashed
from tests.spans import Recorded
from tests.waiting import until_async


async def test_a_job_makes_what_the_generation_makes(working: Working):
    direct = await working.http.post("/v1/generations", json=BODY)
    answer = await working.http.post("/v1/jobs", json=BODY)
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["position"] in (0, 1), "a worker may have taken it"
    assert job["seed"] == 7
    ended = await working.until(job["id"], "finished")
    assert ended["progress"] == 1
    assert ended["eta_seconds"] == 0
    assert ended["created"] <= ended["started"] <= ended["ended"] < ended["expires"]
    audio = await working.http.get(ended["audio"])
    assert audio.content == direct.content
    assert audio.headers["content-type"] == "audio/wav"
    assert audio.headers["x-seed"] == "7"


async def test_a_drawn_seed_is_told_and_used(working: Working):
    job = await made(working, {"prompt": "calm piano", "duration": 1})
    await working.until(job["id"], "finished")
    audio = await working.http.get(f"/v1/jobs/{job['id']}/audio")
    assert audio.headers["x-seed"] == str(job["seed"])
    assert working.music.seen[0].seed == job["seed"]


@pytest.mark.parametrize(("quality", "tier"), [("draft", "draft"), ("auto", "standard")])
async def test_a_jobs_tier_is_that_of_its_acceptance(working: Working, quality: str, tier: str):
    """What tiers stand for may have changed when it is made."""
    working.service.limits = UserConfig.model_validate(
        {"quality": {"standard": {"format": "flac"}}}
    )
    job = await made(working, BODY | {"quality": quality})
    working.service.limits = UserConfig.model_validate({"quality": {tier: {"format": "wav"}}})
    await working.until(job["id"], "finished")
    audio = await working.http.get(f"/v1/jobs/{job['id']}/audio")
    assert audio.headers["x-quality"] == tier
    assert audio.headers["content-type"] == f"audio/{'mpeg' if tier == 'draft' else 'flac'}"


@pytest.mark.parametrize("revoked", [False, True])
async def test_no_job_begins_before_the_configuration_has_come(kept: Kept, revoked: bool):
    """An ingress starts without keys and Serve brings them later: no owner is unknown by then."""
    studio, other = (
        KeySettings(name=name, sha256=hashed(name), weight=1) for name in ("studio", "other")
    )
    headers = {"authorization": "Bearer studio"}
    async with working_in(kept, at_once=0, keys=(studio, other)) as accepting:
        job = (await made(accepting, BODY, **headers))["id"]
    async with working_in(kept, configured=False) as started:
        store = started.service.jobs.store
        for _ in range(20):  # each gives way to a runner that would take it
            assert list(await store.find_places("job", [job])) == [job]
        started.service.limits = UserConfig(keys=(other,) if revoked else (studio, other))
        started.service.configured.set()

        async def ended() -> Job | None:
            found = await started.service.jobs.load_job(job)
            return found if found and found.has_ended else None

        found = await until_async(ended, 20)
        assert found.status == ("failed" if revoked else "finished")
        if revoked:
            assert found.error.code == "invalid_api_key"
            assert "'studio' is no longer known" in found.error.message


async def test_many_clips_are_json(working: Working):
    job = await made(working, BODY | {"n": 3})
    await working.until(job["id"], "finished")
    clips = (await working.http.get(f"/v1/jobs/{job['id']}/audio")).json()["clips"]
    assert [clip["variation"] for clip in clips] == [0, 1, 2]


async def test_files_come_along(working: Working):
    codec = CodecInfo(4, 512, 16000, 1, 50.0)
    prompt = codes_file.write_codes(Codes.pack(np.zeros((4, 50), np.int64)), codec, 16000, "codec")
    answer = await working.http.post(
        "/v1/jobs", data={"prompt": "x", "duration": "2"}, files={"continue_from": prompt}
    )
    assert answer.status_code == 202, answer.text
    await working.until(answer.json()["id"], "finished")
    assert working.music.seen[0].prompt.frames == 50
    audio = await working.http.get(f"/v1/jobs/{answer.json()['id']}/audio")
    assert soundfile.info(io.BytesIO(audio.content)).duration == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (BODY | {"stream": True}, "invalid_value"),
        (BODY | {"webhook": "ftp://example.com"}, "webhook_not_allowed"),
        (BODY | {"duration": 1000}, "invalid_value"),
        (BODY | {"callback": "x"}, "unknown_field"),
    ],
)
async def test_what_cannot_be_had_is_refused_at_once(working: Working, body: object, code: str):
    answer = await working.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == code
    assert await working.service.jobs.store.count_waiting("job") == 0


async def test_progress_and_eta_are_told_while_it_runs(working: Working):
    working.music.gate = asyncio.Event()
    first = await made(working, BODY | {"duration": 4})
    await working.until(first["id"], "running")

    async def gone_on() -> dict[str, object] | None:
        found = await working.look(first["id"])
        return found if found["progress"] else None

    running = await until_async(gone_on)
    assert running["progress"] == 1 / 4
    assert running["eta_seconds"] > 0
    assert running["position"] == 0
    answer = await working.http.get(f"/v1/jobs/{first['id']}/audio")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "job_running"
    working.music.gate.set()
    await working.until(first["id"], "finished")


async def test_places_and_etas_of_those_that_wait(kept: Kept):
    async with working_in(kept, at_once=0) as working:
        jobs = [await made(working, BODY | {"seed": seed}) for seed in range(3)]
        assert [job["position"] for job in jobs] == [1, 2, 3]
        speed = 2.0
        accounts = working.service.ledger.methods.accounts
        accounts._state.speeds["music"] = speed  # its replicas have reported it
        looked = [await working.look(job["id"]) for job in jobs]
        price = BODY["duration"] * 2 / speed
        assert [job["eta_seconds"] for job in looked] == [price, 2 * price, 3 * price]


async def test_keys_take_turns(tmp_path: Path):
    """One job of a key does not wait behind the many of another."""
    keys = tuple(KeySettings(name=name, sha256=hashed(name)) for name in ("one", "other"))
    headers = {key.name: {"authorization": f"Bearer {key.name}"} for key in keys}
    async with working_in(tmp_path, at_once=0, keys=keys) as idle:
        await made(idle, [BODY | {"seed": seed} for seed in range(20)], **headers["one"])
        last = await made(idle, BODY | {"seed": 100}, **headers["other"])
        assert last["position"] == 2
    async with working_in(tmp_path, at_once=1, keys=keys) as working:
        await until_async(lambda: _seen(working, 21))
        assert [params.seed for params in working.music.seen].index(100) == 1


async def _seen(working: Working, number: int) -> bool:
    return len(working.music.seen) == number


async def test_a_job_grows_old_enough_to_begin_under_steady_load(working: Working):
    """A job that has waited as long as what is before it takes is let in; a new one is not."""
    jobs, speed = working.service.jobs, 2.0
    charge = Charge("other", 1.0, "music", 100.0 * speed, 99)
    async with working.service.executor.admission.hold_charges(EVERYONE, [charge]):
        new, old = [(await made(working, BODY | {"seed": seed}))["id"] for seed in (1, 2)]

        async def has_aged() -> bool:
            job = await jobs.load_job(old)
            return await jobs.replace_job(
                job, job.model_copy(update={"created": job.created - 101.0})
            )

        await until_async(has_aged)
        await working.until(old, "finished")
        assert (await working.look(new))["status"] == "queued"


async def test_cancelling_keeps_what_has_finished(working: Working):
    """Whoever cancels a moment too late loses nothing."""
    job = await made(working)
    await working.until(job["id"], "finished")
    for _ in range(2):
        answer = await working.http.post(f"/v1/jobs/{job['id']}/cancel")
        assert answer.status_code == 200
        assert answer.json()["status"] == "finished"
    assert (await working.http.get(f"/v1/jobs/{job['id']}/audio")).status_code == 200


async def test_a_job_that_runs_is_deleted(working: Working, tmp_path: Path):
    """What it makes does not come back."""
    working.music.gate = asyncio.Event()
    job = await made(working)
    await working.until(job["id"], "running")
    for _ in range(2):
        assert (await working.http.delete(f"/v1/jobs/{job['id']}")).status_code == 204
    assert (await working.http.get(f"/v1/jobs/{job['id']}")).status_code == 404
    await until_async(lambda: _value(not working.service.ledger.open))
    assert await working.service.jobs.store.count_waiting("job") == 0


async def _value(value: object) -> object:
    return value


async def test_jobs_are_listed(working: Working):
    working.service.limits = UserConfig(
        keys=tuple(KeySettings(name=name, sha256=hashed(name)) for name in ("one", "other"))
    )
    mine, others = ({"authorization": f"Bearer {key}"} for key in ("one", "other"))
    made_jobs = await made(working, [BODY | {"seed": seed} for seed in range(5)], **mine)
    newest = [job["id"] for job in made_jobs["jobs"]][::-1]
    codes = {"type": "decode", "codes": [[0] * 10] * 4}
    decode = await made(working, codes, **others)
    for job in newest:
        await until_async(lambda job=job: _is_finished(working, job))

    async def page(headers: dict[str, str], **query: Any) -> tuple[list[str], str | None]:
        answer = await working.http.get("/v1/jobs", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]], answer.json()["next_cursor"]

    assert await page(mine) == (newest, None)
    assert (await page(others))[0] == [decode["id"]]
    first, cursor = await page(mine, limit=3, status="finished")
    assert first == newest[:3]
    assert await page(mine, limit=3, cursor=cursor) == (newest[3:], None)
    assert await page(mine, status="queued") == ([], None)
    assert await page(mine, type="decode") == ([], None)
    for query in ({"cursor": "x"}, {"status": "x"}, {"type": "x"}, {"limit": 0}):
        answer = await working.http.get("/v1/jobs", params=query, headers=mine)
        assert answer.status_code == 422


async def _is_finished(working: Working, name: str) -> bool:
    job = await working.service.jobs.load_job(name)
    return bool(job and job.status == "finished")


async def test_a_look_costs_the_same_at_ten_thousand_jobs(kept: Kept):
    async with working_in(kept, at_once=0, max_jobs=20_000) as working:
        store, job = working.service.jobs.store, (await made(working))["id"]

        async def fill(first: int, last: int) -> None:
            works = [Work("job", f"job_{n}", 1.0, f"key {n % 7}") for n in range(first, last)]
            await store.add_jobs([NewJob("x", 1e12, work) for work in works])

        async def measure() -> float:
            """Return the shortest of several times, which others disturb least."""
            times = list[float]()
            for _ in range(30):
                began = time.perf_counter()
                await working.look(job)
                times.append(time.perf_counter() - began)
            return min(times)

        await fill(0, 10)
        few = await measure()
        await fill(10, 10_000)
        assert await store.count_waiting("job") == 10_001
        # Before positions had an index it was 90 times as long; a busy machine makes it twice.
        assert await measure() < 10 * few


async def test_a_jobs_name_is_in_its_logs_and_begins_its_trace(
    working: Working, recorded: Recorded
):
    names: list[str] = []
    remote = working.music.remote

    def noted(*args: Any, **carried: Any) -> Any:
        names.append(_get_serve_request_context().request_id)
        return remote(*args, **carried)

    working.music.remote = noted  # type: ignore[method-assign]
    job = await made(working)
    await working.until(job["id"], "finished")
    assert names == [job["id"]], "Serve puts it into every log line, and hands it on"

    async def ended() -> bool:
        return "job" in recorded.names()

    await until_async(ended)
    whole = recorded.one("job")
    assert whole.parent is None
    assert whole.attributes == {"audiocraft.request_id": job["id"]}
    assert "admission" in {part.name for part in recorded.children(whole)}
    assert int(working.music.carried[0]["carrier"]["traceparent"][3:35], 16) == (
        whole.get_span_context().trace_id
    )


@pytest.mark.parametrize(
    ("jobs", "told"),
    [({}, "AUDIOCRAFT_WEBHOOK_SECRETS: a webhook secret is"),
     ({"store": {"kind": "redis", "url": "redis://x", "files": "y", "password_env": "NOT_SET"}},
      "NOT_SET is not set")],
)  # fmt: skip
def test_a_missing_or_wrong_secret_is_found_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, jobs: dict[str, Any], told: str
):
    if not jobs:
        monkeypatch.setenv(WEBHOOK_SECRETS, "not-a-secret")
    model = {"name": "codec", "kind": "encodec", "checkpoint": "x"}
    args = {"models": [model], "ingress": {"jobs": jobs}}
    with pytest.raises(LaunchError, match=told) as raised:
        check_environment({"applications": [{"args": args}]})
    assert "not-a-secret" not in str(raised.value)
