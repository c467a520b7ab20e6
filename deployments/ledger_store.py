"""The ledger's accounts in Redis: read when a ledger begins, then written every second."""

import asyncio
import contextvars
import logging

from coredis import Redis
from coredis.exceptions import RedisError
from pydantic import ValidationError

from deployments.accounts import Accounts
from deployments.settings import RedisServer

REDIS_KEY = "audiocraft:ledger"
WRITE_EVERY_S = 1.0
READ_TIMEOUT_S = 5.0
"""How long a ledger waits for what the last one wrote."""
EXPIRE_S = 86_400
logger = logging.getLogger("ray.serve")


class LedgerStore:
    """Keeps accounts; while Redis is gone they are in memory alone, and the log says so."""

    def __init__(self, server: RedisServer, accounts: Accounts) -> None:
        self._url, self._password = server.url, server.password
        self._accounts = accounts
        self._read = asyncio.Event()

    async def start_writing(self) -> None:
        """Read, and write from then on."""
        nobody = contextvars.Context()  # it is of no request
        self._writing = asyncio.create_task(self._write_with_retries(), context=nobody)
        try:
            await asyncio.wait_for(self._read.wait(), READ_TIMEOUT_S)
        except TimeoutError:
            self._read.set()  # by now the accounts know more
            logger.warning("the ledger begins with nothing: Redis does not answer")

    async def stop_writing(self) -> None:
        """Stop writing."""
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)

    async def _write_with_retries(self) -> None:
        while True:
            try:
                await self._read_then_write()
            except (RedisError, OSError, ExceptionGroup) as error:
                logger.warning("the ledger is in memory alone, Redis cannot be used: %r", error)
            await asyncio.sleep(WRITE_EVERY_S)

    async def _read_then_write(self) -> None:
        async with Redis.from_url(self._url, password=self._password) as redis:
            if not self._read.is_set() and (written := await redis.get(REDIS_KEY)):
                self._load_state(written)
            self._read.set()
            while True:
                await redis.set(REDIS_KEY, self._accounts.dump_state(), ex=EXPIRE_S)
                await asyncio.sleep(WRITE_EVERY_S)

    def _load_state(self, written: bytes) -> None:
        try:
            self._accounts.load_state(written)
        except ValidationError as error:
            logger.warning("the ledger begins with nothing: another version wrote it: %s", error)
