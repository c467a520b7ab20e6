"""The ledger's accounts in Redis: read when a ledger begins, then written every second."""

import asyncio
import contextvars
import logging

from coredis import Redis
from coredis.exceptions import RedisError
from pydantic import ValidationError

from deployments.accounts import Accounts
from deployments.settings import RedisServer

KEY = "audiocraft:ledger"
EVERY_S = 1.0
PATIENCE_S = 5.0
"""How long a ledger waits for what the last one wrote."""
KEEP_S = 86_400
logger = logging.getLogger("ray.serve")


class Kept:
    """Keeps accounts; while Redis is gone they are in memory alone, and the log says so."""

    def __init__(self, server: RedisServer, accounts: Accounts) -> None:
        self._url, self._password = server.url, server.password
        self._accounts = accounts
        self._read = asyncio.Event()

    async def begin(self) -> None:
        """Read, and write from then on."""
        nobody = contextvars.Context()  # it is of no request
        self._keeping = asyncio.create_task(self._keep(), context=nobody)
        try:
            await asyncio.wait_for(self._read.wait(), PATIENCE_S)
        except TimeoutError:
            self._read.set()  # by now the accounts know more
            logger.warning("the ledger begins with nothing: Redis does not answer")

    async def end(self) -> None:
        """Stop writing."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            try:
                await self._connected()
            except (RedisError, OSError, ExceptionGroup) as error:
                logger.warning("the ledger is in memory alone, Redis cannot be used: %r", error)
            await asyncio.sleep(EVERY_S)

    async def _connected(self) -> None:
        async with Redis.from_url(self._url, password=self._password) as redis:
            if not self._read.is_set() and (written := await redis.get(KEY)):
                self._take(written)
            self._read.set()
            while True:
                await redis.set(KEY, self._accounts.written(), ex=KEEP_S)
                await asyncio.sleep(EVERY_S)

    def _take(self, written: bytes) -> None:
        try:
            self._accounts.read(written)
        except ValidationError as error:
            logger.warning("the ledger begins with nothing: another version wrote it: %s", error)
