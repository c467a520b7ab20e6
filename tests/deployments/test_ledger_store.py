"""Tests that Redis keeps the accounts of a ledger for the next one."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from coredis import Redis

from deployments import ledger_store
from deployments.accounts import LEASE_S, Accounts
from deployments.capacity import Capacity, Patience
from deployments.ledger_state import Charge, Share
from deployments.ledger_store import LedgerStore
from deployments.settings import RedisServer as Settings
from tests.redis_server import RedisServer
from tests.waiting import until_async

KEY = "{audiocraft}:ledger"
RATED = Share("a", requests_per_minute=1)
CHARGE = Charge("a", 1.0, "music", 60.0)


@asynccontextmanager
async def run_store(server: RedisServer, accounts: Accounts) -> AsyncIterator[None]:
    one = LedgerStore(Settings(url=server.url), accounts)
    await one.start_writing()
    yield
    await one.stop_writing()


async def read_state(server: RedisServer) -> bytes:
    async with Redis.from_url(server.url) as redis:
        return await redis.get(KEY) or b""


@pytest.fixture(autouse=True)
def write_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_store, "WRITE_EVERY_S", 0.05)


async def test_a_new_ledger_has_the_state_of_the_last_one(redis_server: RedisServer):
    now = 100.0
    # The second ledger has the clock of another machine.
    first, second = Accounts(lambda: now), Accounts(lambda: now + 5000)
    async with run_store(redis_server, first):
        assert first.admit(
            "i", "1", Charge("a", 1.0, "sound", 90.0), Share("a"), Patience(60, Capacity(speed=7))
        ).admitted
        now += 10
        first.settle("i", "1", 0.0)
        assert first.admit("i", "2", CHARGE, RATED, Patience(600)).admitted
        await until_async(lambda: state_contains(redis_server, b'"2"'))
    async with run_store(redis_server, second):
        assert second.compute_backlog() == {"music": 60}
        assert second.snapshot().speeds == {"sound": 7}
        assert second.admit("i", "3", CHARGE, RATED, Patience(600)).refused_for == "rate"
        now += LEASE_S + 1
        assert second.compute_backlog() == {}, "the ingress stopped in the meantime"


async def state_contains(server: RedisServer, text: bytes) -> bool:
    return text in await read_state(server)


async def test_redis_may_fail_and_return(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "ray.serve")
    accounts = Accounts()
    async with run_store(redis_server, accounts):
        redis_server.kill()
        assert accounts.admit("i", "1", CHARGE, Share("a"), Patience(60)).admitted

        async def has_warned() -> bool:
            return "only in memory" in caplog.text

        await until_async(has_warned)
        redis_server.start()
        await until_async(lambda: state_contains(redis_server, b'"music"'))
        assert accounts.compute_backlog() == {"music": 60}


@pytest.mark.parametrize("what", [b"{}", b"\xff not JSON"])
async def test_the_state_of_another_version_is_ignored(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, what: bytes
):
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(KEY, what)
    accounts = Accounts()
    async with run_store(redis_server, accounts):
        assert accounts.compute_backlog() == {}
    assert "another version" in caplog.text


async def test_a_ledger_without_redis_starts_empty(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger_store, "READ_TIMEOUT_S", 0.2)
    redis_server.kill()
    accounts = Accounts()
    async with run_store(redis_server, accounts):
        assert "does not answer" in caplog.text
        accounts.admit("i", "1", CHARGE, Share("a"), Patience(60))
        redis_server.start()
        await until_async(lambda: state_contains(redis_server, b'"music"'))
