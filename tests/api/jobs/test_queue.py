"""Jobs that are cancelled, fail, wait, or find no room in the queue."""

import asyncio

import pytest
from ray.serve.exceptions import DeploymentUnavailableError

from api.keys import EVERYONE
from api.settings import KeySettings, UserConfig
from deployments.ledger_state import Charge
from engine.errors import GenerationFailed
from graph.jobs import runner
from tests.api.jobs.conftest import BODY, Kept, Working, made, working_in
from tests.api.test_admission import hashed
from tests.waiting import until_async


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
