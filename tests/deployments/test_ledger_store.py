"""The ledger's accounts outlive it in Redis."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from coredis import Redis

from deployments import ledger_store
from deployments.accounts import LEASE_S, Accounts, Charge, Patience, Share
from deployments.ledger_store import REDIS_KEY, LedgerStore
from deployments.settings import RedisServer as Settings
from tests.redis_server import RedisServer
from tests.waiting import until_async

RATED = Share("a", requests_per_minute=1)
CHARGE = Charge("a", 1.0, "music", 60.0)


@asynccontextmanager
async def keeping(server: RedisServer, accounts: Accounts) -> AsyncIterator[None]:
    one = LedgerStore(Settings(url=server.url), accounts)
    await one.start_writing()
    yield
    await one.stop_writing()


async def written(server: RedisServer) -> bytes:
    async with Redis.from_url(server.url) as redis:
        return await redis.get(REDIS_KEY) or b""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_store, "WRITE_EVERY_S", 0.05)


async def test_the_next_ledger_knows_what_the_last_one_knew(redis_server: RedisServer):
    now = 100.0
    first, second = Accounts(lambda: now), Accounts(lambda: now + 5000)  # another machine's clock
    async with keeping(redis_server, first):
        assert first.admit(
            "i", "1", Charge("a", 1.0, "sound", 90.0), Share("a"), Patience(60)
        ).admitted
        now += 10
        first.settle("i", "1", done=True)
        assert first.admit("i", "2", CHARGE, RATED, Patience(60)).admitted
        await until_async(lambda: holds(redis_server, b'"2"'))
    async with keeping(redis_server, second):
        assert second.compute_backlog() == {"music": 60}
        assert second.get_speeds() == first.get_speeds()
        assert second.get_speeds()["sound"] > 2
        assert second.admit("i", "3", CHARGE, RATED, Patience(60)).refused_for == "rate"
        now += LEASE_S + 1
        assert second.compute_backlog() == {}, "of an ingress that has gone meanwhile"


async def holds(server: RedisServer, text: bytes) -> bool:
    return text in await written(server)


async def test_redis_may_go_and_come_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "ray.serve")
    accounts = Accounts()
    async with keeping(redis_server, accounts):
        redis_server.kill()
        assert accounts.admit("i", "1", CHARGE, Share("a"), Patience(60)).admitted

        async def said() -> bool:
            return "only in memory" in caplog.text

        await until_async(said)
        redis_server.start()
        await until_async(lambda: holds(redis_server, b'"music"'))
        assert accounts.compute_backlog() == {"music": 60}


@pytest.mark.parametrize("what", [b"{}", b"\xff not JSON"])
async def test_what_another_version_wrote_is_no_obstacle(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, what: bytes
):
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(REDIS_KEY, what)
    accounts = Accounts()
    async with keeping(redis_server, accounts):
        assert accounts.compute_backlog() == {}
    assert "another version" in caplog.text


async def test_without_redis_it_begins_with_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger_store, "READ_TIMEOUT_S", 0.2)
    redis_server.kill()
    accounts = Accounts()
    async with keeping(redis_server, accounts):
        assert "does not answer" in caplog.text
        accounts.admit("i", "1", CHARGE, Share("a"), Patience(60))
        redis_server.start()
        await until_async(lambda: holds(redis_server, b'"music"'))
