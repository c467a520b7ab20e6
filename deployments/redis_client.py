"""Connects to a Redis server, or to the cluster that the server belongs to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from coredis import Redis, RedisCluster

RedisClient = Redis[str] | RedisCluster[str]


@asynccontextmanager
async def open_redis(url: str, password: str | None) -> AsyncIterator[RedisClient]:
    """Connect, and disconnect at the end. Raises RedisError or OSError."""
    options: dict[str, Any] = {"password": password, "decode_responses": True}
    async with Redis[str].from_url(url, **options) as redis:
        if not (await redis.info("cluster"))["cluster_enabled"]:
            yield redis
            return
    async with RedisCluster[str].from_url(url, **options) as cluster:
        yield cluster
