"""Stores the ledger's accounts in Redis: reads them at the start, then writes them every second."""

import asyncio
import contextvars
import logging

from coredis.exceptions import RedisError
from pydantic import ValidationError

from deployments.accounts import Accounts
from deployments.redis_client import open_redis
from deployments.settings import RedisServer

WRITE_EVERY_S = 1.0
READ_TIMEOUT_S = 5.0
"""The longest time a new ledger waits for the stored state."""
EXPIRE_S = 86_400
logger = logging.getLogger("ray.serve")


class LedgerStore:
    """Stores accounts in Redis; while Redis fails, it logs a warning and tries again."""

    def __init__(self, server: RedisServer, accounts: Accounts) -> None:
        self._url, self._password = server.url, server.password
        self._key = f"{server.key_prefix}:ledger"
        self._accounts = accounts
        self._read = asyncio.Event()

    async def start_writing(self) -> None:
        """Read the stored state, and write it every second from then on."""
        empty = contextvars.Context()  # the task belongs to no request
        self._writing = asyncio.create_task(self._write_with_retries(), context=empty)
        try:
            await asyncio.wait_for(self._read.wait(), READ_TIMEOUT_S)
        except TimeoutError:
            self._read.set()  # a later read would overwrite newer accounts
            logger.warning("the ledger starts empty: Redis does not answer")

    async def stop_writing(self) -> None:
        """Stop writing."""
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)

    async def _write_with_retries(self) -> None:
        while True:
            try:
                await self._read_then_write()
            except (RedisError, OSError, ExceptionGroup) as error:
                logger.warning("Redis failed; the ledger is only in memory: %r", error)
            await asyncio.sleep(WRITE_EVERY_S)

    async def _read_then_write(self) -> None:
        async with open_redis(self._url, self._password) as redis:
            if not self._read.is_set() and (written := await redis.get(self._key)):
                self._load_state(written)
            self._read.set()
            while True:
                await redis.set(self._key, self._accounts.dump_state(), ex=EXPIRE_S)
                await asyncio.sleep(WRITE_EVERY_S)

    def _load_state(self, written: str | bytes) -> None:
        try:
            self._accounts.load_state(written)
        except ValidationError as error:
            logger.warning(
                "the ledger starts empty: another version wrote the stored state: %s", error
            )
