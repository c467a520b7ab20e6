"""What keeps jobs and their audio: for how long, in which stores, and when it is full."""

import asyncio
import errno
import io
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from coredis import Redis

from api.audio import codes_file
from api.settings import UserConfig
from engine.params import CodecInfo, Codes
from graph.jobs import runner
from graph.jobs import store as stores
from graph.jobs.job import Job
from graph.jobs.jobs import check_store
from graph.settings import FolderStore, IngressSettings, JobsSettings, RedisStore
from launch.start import LaunchError, check_environment
from tests.api.jobs.conftest import BODY, Kept, Working, made, working_in
from tests.redis_server import RedisServer, running_cluster
from tests.waiting import until_async


def kept_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("files/**/*") if path.is_file()]


async def test_an_ended_job_is_deleted_with_its_audio(working: Working, tmp_path: Path):
    job = await made(working)
    await working.until(job["id"], "finished")
    assert kept_files(tmp_path)
    for _ in range(2):  # it may be sent again
        assert (await working.http.delete(f"/v1/jobs/{job['id']}")).status_code == 204
    assert (await working.http.get(f"/v1/jobs/{job['id']}")).status_code == 404
    assert not kept_files(tmp_path)


async def test_results_expire(working: Working, tmp_path: Path):
    working.service.limits = UserConfig(keep_jobs_s=0.3)
    job = await made(working)

    async def swept() -> bool:
        await working.service.jobs.sweep_expired()
        return (await working.http.get(f"/v1/jobs/{job['id']}")).status_code == 404

    await until_async(swept)
    assert not kept_files(tmp_path)


async def test_redis_and_another_file_system_keep_jobs_as_well(redis_server: RedisServer):
    kept = RedisStore(kind="redis", url=redis_server.url, files="memory://jobs")
    async with working_in(kept, at_once=0) as accepting, working_in(kept) as working:
        job = await made(accepting)
        ended = await accepting.until(job["id"], "finished")
        assert len(working.music.seen) == 1
        audio = await accepting.http.get(ended["audio"])
        assert soundfile.info(io.BytesIO(audio.content)).duration == 2
        redis_server.kill()
        answer = await accepting.http.get(f"/v1/jobs/{job['id']}")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "jobs_unavailable"


async def test_a_job_of_an_older_version_is_done(kept: Kept):
    async with working_in(kept, at_once=0) as older:
        job = await made(older)
        store = older.service.jobs.store
        text = await store.get_text(job["id"])
        written = {key: value for key, value in json.loads(text).items() if key != "progress"}
        assert await store.swap_text(job["id"], text, json.dumps(written), job["expires"])
    async with working_in(kept) as newer:
        await newer.until(job["id"], "finished")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((runner, "RETRY_S"), (runner, "STORE_AWAY_S"), (runner, "LOOK_S")):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(stores, "TRY_AGAIN_AFTER_S", (0.05,))


def break_files(working: Working, method: str, fails: Callable[[], bool]) -> list[str]:
    """Let a method of the file system leave half a file, and fail while `fails`; note its uses."""
    system, used = working.service.jobs.files._system, list[str]()
    real = getattr(system, method)

    def broken(path: str, *mode: str, **options: Any) -> Any:
        if mode == ("rb",):
            return real(path, *mode, **options)
        used.append(path)
        if not fails():
            return real(path, *mode, **options)
        if mode == ("wb",):
            with real(path, *mode) as file:
                file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    setattr(system, method, broken)
    return used


@pytest.mark.usefixtures("soon")
async def test_an_answer_that_cannot_be_stored_at_once_is_made_once(working: Working):
    failing = [True] * 3
    break_files(working, "open", lambda: bool(failing and failing.pop()))
    job = await made(working)
    assert (await working.until(job["id"], "finished", "failed"))["status"] == "finished"
    assert len(working.music.seen) == 1


@pytest.mark.usefixtures("soon")
async def test_a_store_that_is_away_fails_no_job(
    working: Working, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """However often its answer cannot be stored; half a file takes no room meanwhile."""
    monkeypatch.setattr(runner, "KEEP_TRYING_S", 0.0)
    full = [True]
    break_files(working, "open", lambda: bool(full))
    job = await made(working)

    async def made_often() -> bool:
        return len(working.music.seen) > 2 * runner.MAX_ATTEMPTS

    await until_async(made_often)
    assert (await working.look(job["id"]))["status"] in ("queued", "running")
    full.clear()
    assert (await working.until(job["id"], "finished", "failed"))["status"] == "finished"
    assert [path.parent.name for path in kept_files(tmp_path)] == [job["id"]]


@pytest.mark.usefixtures("soon")
async def test_an_upload_is_read_again(working: Working):
    failing = [True] * 4
    used = break_files(working, "cat_file", lambda: bool(failing and failing.pop()))
    job = await upload(working)
    ended = await working.until(job.json()["id"], "finished", "failed")
    assert ended["status"] == "finished"
    assert len(used) == 5


@pytest.mark.usefixtures("soon")
async def test_an_upload_that_cannot_be_kept_is_told(working: Working):
    failing = [True]
    break_files(working, "open", lambda: bool(failing and failing.pop()))
    accepted = await upload(working)
    assert accepted.status_code == 202
    await working.until(accepted.json()["id"], "finished")  # it writes no file any more
    failing = [True] * 2
    answer = await upload(working)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "results_unavailable"


@pytest.mark.usefixtures("soon")
async def test_an_answer_that_cannot_be_read_is_told(working: Working):
    job = await made(working)
    ended = await working.until(job["id"], "finished")
    failing = [True]
    break_files(working, "size", lambda: bool(failing and failing.pop()))
    assert (await working.http.get(ended["audio"])).status_code == 200
    failing = [True] * 2
    answer = await working.http.get(ended["audio"])
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "results_unavailable"


async def upload(working: Working) -> httpx.Response:
    codec = CodecInfo(4, 512, 16000, 1, 50.0)
    codes = codes_file.write_codes(Codes.pack(np.zeros((4, 50), np.int64)), codec, 16000, "codec")
    fields = {"prompt": "x", "duration": "2"}
    return await working.http.post("/v1/jobs", data=fields, files={"continue_from": codes})


@pytest.mark.usefixtures("soon")
async def test_a_store_of_jobs_that_is_away_for_a_while_fails_no_job(
    working: Working, monkeypatch: pytest.MonkeyPatch
):
    """It is away while a job runs, more often than a job is begun anew."""
    jobs, failing = working.service.jobs, [True] * (3 * runner.MAX_ATTEMPTS)
    monkeypatch.setattr(runner, "KEEP_TRYING_S", 0.0)
    real = jobs.replace_job

    async def replace(old: Job, new: Job) -> bool:
        if new.status == "finished" and failing:
            failing.pop()
            raise stores.StoreUnavailable(503, "jobs_unavailable", "x")
        return await real(old, new)

    monkeypatch.setattr(jobs, "replace_job", replace)
    job = await made(working)
    assert (await working.until(job["id"], "finished", "failed"))["status"] == "finished"


def test_files_are_their_owners_alone(tmp_path: Path):
    before = os.umask(0o022)
    folder = tmp_path / "jobs"

    async def work() -> None:
        async with working_in(folder) as working:
            job = (await upload(working)).json()["id"]
            await working.until(job, "finished")
            modes = {
                path.relative_to(folder): stat.S_IMODE(path.stat().st_mode)
                for path in (folder, *folder.rglob("*"))
            }
            assert len(modes) > 6
            for path, mode in modes.items():
                assert mode == (0o700 if (folder / path).is_dir() else 0o600), path

    asyncio.run(work())
    os.umask(before)


def damage(folder: Path) -> Path:
    """Overwrite the middle of a database."""
    path = folder / "jobs.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    data = bytearray(path.read_bytes())
    data[2000:-1] = os.urandom(len(data) - 2001)
    path.write_bytes(data)
    return path


async def some_jobs(folder: Path) -> None:
    async with working_in(folder, at_once=0) as working:
        await made(working, [BODY] * 20)


async def test_a_damaged_store_ends_the_start_at_once(tmp_path: Path):
    """With the file, the cause, and what to do; nothing in the folder changes."""
    await some_jobs(tmp_path)
    path = damage(tmp_path)
    before = path.read_bytes()
    store = {"kind": "folder", "folder": str(tmp_path)}
    model = {"name": "codec", "kind": "encodec", "checkpoint": "x"}
    args = {"models": [model], "ingress": {"jobs": {"store": store}}}
    with pytest.raises(LaunchError, match=r"is damaged .*replace_damaged") as raised:
        check_environment({"applications": [{"args": args}]})
    assert str(path) in str(raised.value)
    with pytest.raises(OSError, match="is damaged"):
        await some_jobs(tmp_path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_damaged(tmp_path: Path):
    (tmp_path / "jobs.sqlite").write_bytes(b"no database at all, but text" * 100)
    with pytest.raises(OSError, match="is damaged"):
        await some_jobs(tmp_path)


def test_a_damaged_store_is_replaced_where_this_is_set(tmp_path: Path):
    asyncio.run(some_jobs(tmp_path))
    before = damage(tmp_path).read_bytes()
    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path), replace_damaged=True))
    check_store(jobs)
    (kept,) = tmp_path.glob("jobs.sqlite.damaged-*")
    assert kept.read_bytes() == before
    asyncio.run(some_jobs(tmp_path))


async def test_a_store_of_the_version_before_goes_on(tmp_path: Path):
    """What waited there is done."""
    async with working_in(tmp_path, at_once=0) as working:
        name = (await made(working))["id"]
        text = await working.service.jobs.store.get_text(name)
    connection = sqlite3.connect(tmp_path / "jobs.sqlite")
    for table in ("entries", "turns", "clocks", "texts"):
        connection.execute(f"drop table {table}")
    connection.executescript(VERSION_0)
    connection.execute("insert into texts values (?, ?, 1e12)", (name, text))
    connection.execute(
        "insert into work values ('job', ?, 1.0, 'everyone', 'music', 4.0, 0, 0, null, 0)", (name,)
    )
    connection.commit()
    connection.close()
    async with working_in(tmp_path) as working:
        await working.until(name, "finished")
        listed = (await working.http.get("/v1/jobs")).json()["jobs"]
        assert [job["id"] for job in listed] == [name]


VERSION_0 = """
create table texts (name text primary key, text text not null, expires real not null);
create table work (kind text, name text, since real, owner text, model text, row_seconds real,
    due real not null, leased_until real not null default 0, holder text,
    attempts int not null default 0, primary key (kind, name));
pragma user_version = 0;
"""


@pytest.mark.parametrize(
    "more",
    [{"replicas": 2}, {"spread": True}, {"replicas": {"min_replicas": 1, "max_replicas": 2}}],
)
def test_several_ingresses_share_no_folder(more: dict[str, object]):
    with pytest.raises(ValueError, match="kind: redis"):
        IngressSettings.model_validate(more)
    store = {"kind": "redis", "url": "redis://x", "files": "y"}
    IngressSettings.model_validate(more | {"jobs": {"store": store}})


async def test_two_deployments_share_a_database(redis_server: RedisServer):
    """Each has a prefix of its own, and neither sees the jobs of the other."""
    one, other = (
        RedisStore(kind="redis", url=redis_server.url, files="memory://two", prefix=prefix)
        for prefix in ("one", "other")
    )
    async with working_in(one, at_once=0) as first, working_in(other) as second:
        job = (await made(first))["id"]
        await second.until((await made(second))["id"], "finished")
        assert (await first.look(job))["status"] == "queued"
        assert (await second.http.get(f"/v1/jobs/{job}")).status_code == 404
    async with Redis.from_url(redis_server.url, decode_responses=True) as redis:
        found = {key.split(":")[0] for key in await redis.keys("*")}
    assert found == {"{one}", "{other}"}


async def test_a_redis_cluster_keeps_jobs(tmp_path: Path):
    """Of two nodes; every key of a deployment is on one of them."""
    if not shutil.which("redis-server"):
        pytest.skip("needs Debian's package redis-server")
    with running_cluster(tmp_path) as url:
        for prefix in ("one", "two", "three", "four"):
            kept = RedisStore(kind="redis", url=url, files="memory://cluster", prefix=prefix)
            async with working_in(kept, at_once=0) as accepting, working_in(kept) as working:
                jobs = (await made(accepting, [BODY, BODY]))["jobs"]
                for job in jobs:
                    await working.until(job["id"], "finished")


async def test_a_store_on_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Full:
        in_transaction = False

        def execute(self, *_statement: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    async with working_in(tmp_path) as working:
        with monkeypatch.context() as broken:
            broken.setattr(working.service.jobs.store, "_connection", Full())
            answer = await working.http.post("/v1/jobs", json=BODY)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "jobs_unavailable"
