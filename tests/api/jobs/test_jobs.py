"""Jobs over HTTP: accepted, looked at, cancelled, fetched, and done whatever happens."""

import asyncio
import io
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray.serve.context import _get_serve_request_context
from ray.serve.exceptions import DeploymentUnavailableError

from api.audio import codes_file
from api.keys import EVERYONE
from api.routes import jobs as jobs_routes
from api.settings import WEBHOOK_SECRETS, KeySettings, UserConfig
from deployments.accounts import Snapshot
from deployments.ledger_state import Charge
from engine.errors import GenerationFailed
from engine.params import CodecInfo, Codes
from graph.jobs import runner
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
    assert job["position"] == 1
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


async def test_a_list_is_accepted_whole_or_not_at_all(working: Working):
    jobs = (await made(working, [BODY, BODY | {"seed": 8}]))["jobs"]
    assert [job["seed"] for job in jobs] == [7, 8]
    for job in jobs:
        await working.until(job["id"], "finished")
    before = len(working.music.seen)
    answer = await working.http.post("/v1/jobs", json=[BODY, BODY | {"duration": -1}])
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "1.duration"
    answer = await working.http.post("/v1/jobs", json=[BODY, BODY | {"model": "none"}])
    assert answer.status_code == 404
    assert await working.service.jobs.store.count_waiting("job") == 0
    assert len(working.music.seen) == before
    assert (await working.http.post("/v1/jobs", json=[])).status_code == 422


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
        assert await measure() < 2.5 * few


async def test_a_list_costs_one_call_of_the_ledger(working: Working):
    """Whatever its bodies ask of the ledger, and however many there are."""
    ledger = working.service.ledger
    calls: list[str] = []
    fetch = ledger.fetch_snapshot

    async def counted() -> Snapshot:
        calls.append("snapshot")
        return await fetch()

    ledger.fetch_snapshot = counted  # type: ignore[method-assign]
    await made(working, [BODY | {"quality": "auto"}] * 50)
    assert calls == ["snapshot"]


async def test_too_long_a_list_is_refused_before_it_is_read(
    working: Working, monkeypatch: pytest.MonkeyPatch
):
    """It makes no models, and asks nobody."""
    monkeypatch.setattr(jobs_routes, "SEVERAL_JOBS", None)
    answer = await working.http.post("/v1/jobs", json=[{}] * 60_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_job_that_would_hold_too_many_bytes_is_refused(working: Working):
    working.service.limits = UserConfig(max_held_bytes=1_000_000)
    large = BODY | {"duration": 10, "sample_format": "f32", "sample_rate": 96000}
    answer = await working.http.post("/v1/jobs", json=large)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "answer_too_large"


async def test_a_list_that_cannot_be_stored_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with working_in(tmp_path, at_once=0) as working:
        store, added = working.service.jobs.store, list[str]()
        real = store._add_job

        def add(job: NewJob) -> str:
            if len(added) == 2:
                raise sqlite3.OperationalError("disk I/O error")
            added.append(job.work.name)
            return real(job)

        monkeypatch.setattr(store, "_add_job", add)
        answer = await working.http.post("/v1/jobs", json=[BODY] * 3)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "jobs_unavailable"
        assert await store.count_waiting("job") == 0
        assert [await store.get_text(name) for name in added] == [None, None]


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


async def test_a_waiting_job_is_cancelled(kept: Kept):
    async with working_in(kept, at_once=0) as working:
        job = await made(working)
        answer = await working.http.post(f"/v1/jobs/{job['id']}/cancel")
        assert answer.json()["status"] == "cancelled"
    async with working_in(kept) as working:
        later = await made(working, BODY | {"seed": 1})
        await working.until(later["id"], "finished")
        assert [params.seed for params in working.music.seen] == [1]
        assert (await working.look(job["id"]))["status"] == "cancelled"


async def test_a_running_job_is_cancelled_within_a_second(working: Working):
    working.music.gate = asyncio.Event()
    job = await made(working)
    await working.until(job["id"], "running")
    await working.http.post(f"/v1/jobs/{job['id']}/cancel")

    async def left() -> bool:
        return not working.service.ledger.open

    await until_async(left, 5)
    assert (await working.look(job["id"]))["status"] == "cancelled"
    answer = await working.http.get(f"/v1/jobs/{job['id']}/audio")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "job_cancelled"


async def test_a_failure_is_told(working: Working):
    working.music.error = GenerationFailed("out of memory at step 3")
    job = await made(working)
    failed = await working.until(job["id"], "failed")
    assert failed["error"]["code"] == "generation_failed"
    assert "out of memory" not in failed["error"]["message"]
    assert (await working.http.get(f"/v1/jobs/{job['id']}/audio")).status_code == 409


async def test_others_see_no_job_of_a_key(working: Working):
    working.service.limits = UserConfig(
        keys=(
            KeySettings(name="studio", sha256=hashed("one")),
            KeySettings(name="game", sha256=hashed("two")),
        )
    )
    mine, others = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    answer = await working.http.post("/v1/jobs", json=BODY, headers=mine)
    path = f"/v1/jobs/{answer.json()['id']}"
    for method, where in (("GET", path), ("POST", path + "/cancel"), ("GET", path + "/audio")):
        refused = await working.http.request(method, where, headers=others)
        assert refused.status_code == 404
    assert (await working.http.delete(path, headers=others)).status_code == 204
    assert (await working.http.get(path, headers=mine)).status_code == 200


async def test_a_model_that_is_away_is_waited_for(
    working: Working, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "RETRY_S", 0.1)
    working.music.error = DeploymentUnavailableError("music")
    job = await made(working)

    async def has_tried() -> bool:
        kept = await working.service.jobs.load_job(job["id"])
        return bool(kept and kept.attempts)

    await until_async(has_tried)
    working.music.error = None
    ended = await working.until(job["id"], "finished", "failed")
    assert ended["status"] == "finished"


async def test_a_model_that_stays_away_is_told(working: Working, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.1)
    working.music.error = DeploymentUnavailableError("music")
    job = await made(working)
    ended = await working.until(job["id"], "finished", "failed")
    assert ended["error"]["code"] == "model_unavailable"
    assert (await working.service.jobs.load_job(job["id"])).attempts == runner.MAX_ATTEMPTS


async def test_the_queue_is_bounded(kept: Kept):
    async with working_in(kept, at_once=0, max_jobs=3, max_jobs_per_key=2) as working:
        await made(working, [BODY, BODY])
        answer = await working.http.post("/v1/jobs", json=BODY)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "too_many_jobs"
        assert answer.headers["retry-after"]


async def test_a_cancelled_job_makes_room(kept: Kept):
    async with working_in(kept, at_once=0, max_jobs=1) as working:
        job = await made(working)
        await working.http.post(f"/v1/jobs/{job['id']}/cancel")
        assert (await made(working))["position"] == 1


async def test_a_full_queue_knows_its_own(kept: Kept):
    async with working_in(kept, at_once=0, max_jobs=1) as working:
        first = await made(working, BODY, **{"idempotency-key": "order 1"})
        assert (await made(working, BODY, **{"idempotency-key": "order 1"}))["id"] == first["id"]


async def test_the_same_key_is_the_same_job(working: Working):
    key = {"idempotency-key": "order 1"}
    first = await made(working, BODY, **key)
    await working.until(first["id"], "finished")
    assert (await made(working, BODY, **key))["id"] == first["id"]
    assert len(working.music.seen) == 1
    answer = await working.http.post("/v1/jobs", json=BODY | {"seed": 8}, headers=key)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "idempotency_conflict"
    assert (await made(working, BODY, **{"idempotency-key": "order 2"}))["id"] != first["id"]


async def test_an_ingress_ends_though_it_has_just_begun(kept: Kept):
    """Whatever its calls of the store are doing then."""
    for pause_s in (0.0, 0.002, 0.005, 0.2):
        async with asyncio.timeout(30), working_in(kept):
            await asyncio.sleep(pause_s)


async def test_a_replica_that_leaves_hands_its_jobs_on(kept: Kept):
    async with working_in(kept) as staying:
        async with working_in(kept) as leaving:
            for one in (staying, leaving):
                one.music.gate = asyncio.Event()
            job = await made(leaving)
            await leaving.until(job["id"], "running")
            which = leaving if leaving.music.seen else staying
            staying.music.gate.set()
        ended = await staying.until(job["id"], "finished")
        assert ended["status"] == "finished"
        assert len(staying.music.seen) == 1
        assert which.music.seen


async def test_jobs_wait_while_others_are_busy(working: Working):
    """Jobs give way to who waits at a connection: they are let in at an empty backlog only."""
    refused: list[str] = []
    told = working.service.metrics.count_price
    working.service.metrics.count_price = lambda *args: (refused.append(args[1]), told(*args))
    async with working.service.executor.admission.hold_charges(
        EVERYONE, [Charge("everyone", 1.0, "music", 1000.0, 99)]
    ):
        job = await made(working)
        await until_async(lambda: _refused(refused))
        assert (await working.look(job["id"]))["status"] == "queued"
        assert not working.music.seen


async def _refused(verdicts: list[str]) -> bool:
    return "busy" in verdicts


async def test_a_list_counts_against_the_rate_at_once(working: Working):
    key = KeySettings(name="a", sha256=hashed("k"), requests_per_minute=2)
    working.service.limits = UserConfig(keys=(key,))

    async def post(sent: Any) -> int:
        headers = {"authorization": "Bearer k"}
        return (await working.http.post("/v1/jobs", json=sent, headers=headers)).status_code

    assert [await post([BODY] * 2), await post(BODY)] == [202, 429]
