"""Tests a replica's hub settings, its worker thread and its health checks."""

import asyncio
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from deployments.token_model import TokenModel
from deployments.worker import Health, Worker, prepare_hub


def test_a_bundle_needs_no_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    prepare_hub("facebook/musicgen-small")
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    prepare_hub("bundle:tiny/music", "google/flan-t5-small")
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    prepare_hub("bundle:tiny/music", None)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_logs_outlive_the_import_of_audiocraft():
    """The test runs a new process, since the import closes every log handler."""
    code = """
import logging
from logging.handlers import MemoryHandler
log = logging.getLogger("ray.serve")
for keep in (False, True):
    log.handlers = [MemoryHandler(1, target=logging.StreamHandler())]
    if keep:
        from deployments.worker import keep_logs
        keep_logs()
    import submitit.core.logger
    log.error("heard, kept: %s", keep)
    import sys
    del sys.modules["submitit.core.logger"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kept: True" in done.stderr
    assert "kept: False" not in done.stderr, "submitit no longer closes the handlers"


def test_the_older_token_name_is_honoured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "old")
    prepare_hub("facebook/musicgen-small")
    assert os.environ["HF_TOKEN"] == "old"
    monkeypatch.setenv("HF_TOKEN", "new")
    prepare_hub("facebook/musicgen-small")
    assert os.environ["HF_TOKEN"] == "new"


async def test_calls_run_in_order_on_one_thread():
    worker = Worker()
    names: list[str] = []
    calls = [worker.run(lambda: names.append(threading.current_thread().name)) for _ in range(5)]
    await asyncio.gather(*calls)
    assert names == ["model_0"] * 5


async def test_a_cancelled_call_in_the_queue_never_begins():
    worker, release, begun = Worker(), threading.Event(), []
    blocker = asyncio.create_task(worker.run(release.wait))
    queued = asyncio.create_task(worker.run(begun.append, 1))
    await asyncio.sleep(0)
    queued.cancel()
    await asyncio.gather(queued, return_exceptions=True)
    release.set()
    await blocker
    await worker.run(lambda: None)
    assert begun == []


def test_only_an_idle_model_is_probed():
    health = Health()
    assert not health.needs_probe(0, busy=False)
    assert health.needs_probe(0, busy=False)
    assert not health.needs_probe(5, busy=True)
    assert not health.needs_probe(5, busy=True)


def test_a_busy_model_without_progress_fails():
    health = Health(stall_seconds=0)
    health.needs_probe(3, busy=True)
    with pytest.raises(RuntimeError, match="no step finished"):
        health.needs_probe(3, busy=True)


def build_token_model(loop: SimpleNamespace) -> Any:
    """Return what `TokenModel.check_health` uses of a token model."""
    encoder = Worker()

    async def prepare(params: Any) -> None:
        raise AssertionError("it was probed")

    return SimpleNamespace(
        _model=SimpleNamespace(loop=loop), _metrics=MagicMock(), _read_load=MagicMock(),
        _health=Health(0.0), _encoder_health=Health(60.0), _encoder=encoder, _requests=1,
        _prepare_request=prepare, _params=MagicMock(),
    )  # fmt: skip


async def test_a_long_melody_does_not_make_a_replica_unhealthy():
    """No step is made meanwhile, and a probe would wait behind the melody."""
    engine = SimpleNamespace(statistics=SimpleNamespace(steps=7), busy=False)
    model = build_token_model(SimpleNamespace(engine=engine, check_alive=lambda: None))
    ended = threading.Event()
    encoding = asyncio.create_task(model._encoder.run(ended.wait))
    await asyncio.sleep(0)
    for _ in range(3):
        await TokenModel.check_health(model)
    model._encoder_health = Health(-1.0)
    await_first = TokenModel.check_health(model)
    await await_first
    with pytest.raises(RuntimeError, match="no step finished"):
        await TokenModel.check_health(model)
    ended.set()
    await encoding


END = """
import asyncio, sys
from types import SimpleNamespace
from deployments.token_model import TokenModel
from deployments.worker import Worker
from engine.errors import EngineFailed

def fail(*given):
    raise EngineFailed("the GPU refuses all further work")

async def encode():
    try:
        await Worker(check_device=fail).run(int, "no number")
    except ValueError:
        print("it lives")

loop = SimpleNamespace(check_alive=fail)
model = SimpleNamespace(_failed=EngineFailed, _model=SimpleNamespace(loop=loop))
asyncio.run(encode() if sys.argv[1] == "encode" else TokenModel.check_health(model))
"""


@pytest.mark.parametrize("what", ["encode", "check"])
def test_a_failed_gpu_ends_the_replica(what: str):
    """Its process ends, so Serve replaces it at once, and callers go on with another replica."""
    command = [sys.executable, "-c", END, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "this replica ends: the GPU refuses" in done.stderr


async def test_a_call_that_fails_on_a_sound_device_fails_alone():
    with pytest.raises(ValueError, match="no number"):
        await Worker().run(int, "no number")
