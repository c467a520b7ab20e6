"""What keeps jobs and their audio: for how long, in which stores, and when it is full."""

import asyncio
import errno
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from api.settings import UserConfig
from graph.jobs import runner
from graph.settings import RedisStore
from tests.api.jobs.conftest import BODY, Working, made, working_in
from tests.redis_server import RedisServer
from tests.waiting import until_async


def kept_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("files/**/*") if path.is_file()]


async def test_an_ended_job_is_deleted_with_its_audio(working: Working, tmp_path: Path):
    job = await made(working)
    await working.until(job["id"], "finished")
    assert kept_files(tmp_path)
    answer = await working.http.delete(f"/v1/jobs/{job['id']}")
    assert answer.json()["status"] == "finished"
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


async def test_a_job_of_an_older_version_is_done(tmp_path: Path):
    async with working_in(tmp_path, at_once=0) as older:
        job = await made(older)
        store = older.service.jobs.store
        text = await store.get_text(job["id"])
        written = {key: value for key, value in json.loads(text).items() if key != "progress"}
        assert await store.swap_text(job["id"], text, json.dumps(written), job["expires"])
    async with working_in(tmp_path) as newer:
        await newer.until(job["id"], "finished")


def fill_disk(
    working: Working, monkeypatch: pytest.MonkeyPatch, tell: Callable[[], object] = bool
) -> None:
    """Let each file's first bytes be written, and no more."""
    system = working.service.jobs.files._system
    real = system.open

    def open_file(path: str, mode: str) -> Any:
        file = real(path, mode)
        if mode == "rb":
            return file

        def write(data: bytes) -> None:
            file.f.write(data[:100])
            tell()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(file, "write", write, raising=False)
        return file

    monkeypatch.setattr(system, "open", open_file)


async def test_a_full_disk_is_waited_for(working: Working, monkeypatch: pytest.MonkeyPatch):
    """What was written of a file goes, so that it takes no room from the next attempt."""
    monkeypatch.setattr(runner, "RETRY_S", 0.1)
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()
    fill_disk(working, monkeypatch, lambda: loop.call_soon_threadsafe(tried.set))
    job = await made(working)
    await asyncio.wait_for(tried.wait(), 20)
    await working.until(job["id"], "queued")
    monkeypatch.undo()
    monkeypatch.setattr(runner, "RETRY_S", 0.1)
    ended = await working.until(job["id"], "finished", "failed")
    assert ended["status"] == "finished"


async def test_a_disk_that_stays_full_is_told(working: Working, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "RETRY_S", 0.1)
    files = working.service.jobs.files
    fill_disk(working, monkeypatch)
    job = await made(working)
    failed = await working.until(job["id"], "failed")
    assert failed["error"]["code"] == "results_unavailable"
    assert not kept_files(Path(files._root).parent)


async def test_a_store_on_a_full_disk_is_told(working: Working, monkeypatch: pytest.MonkeyPatch):
    class Full:
        def execute(self, *_statement: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None:
            pass

    real = working.service.jobs.store._connection
    monkeypatch.setattr(working.service.jobs.store, "_connection", Full())
    answer = await working.http.post("/v1/jobs", json=BODY)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "jobs_unavailable"
    monkeypatch.setattr(working.service.jobs.store, "_connection", real)
