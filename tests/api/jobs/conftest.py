"""Stores to test with, a SQLite file and Debian's Redis; and an application that works on jobs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.ingress import create_app
from api.service import Service
from api.settings import WEBHOOK_SECRETS, UserConfig
from deployments.settings import EnCodecSettings, MusicGenSettings
from graph.jobs.redis import RedisStore
from graph.jobs.sqlite import SqliteStore
from graph.jobs.store import Store
from graph.settings import FolderStore, JobsSettings
from graph.settings import RedisStore as RedisSettings
from tests.api.conftest import FakeCodec, FakeLanguageModel, Media, serving
from tests.redis_server import RedisServer
from tests.waiting import until_async

Kept = Path | RedisSettings
Connect = Callable[[], Awaitable[Store]]


@asynccontextmanager
async def connecting(make: Callable[[], Store]) -> AsyncIterator[Connect]:
    """Several stores of the same texts, as ingress replicas have them."""
    async with AsyncExitStack() as opened:

        async def connect() -> Store:
            store = make()
            await store.open()
            opened.push_async_callback(store.close)
            return store

        yield connect


@pytest.fixture(params=["sqlite", "redis"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    if request.param == "sqlite":
        async with connecting(lambda: SqliteStore(tmp_path / "jobs" / "jobs.sqlite")) as one:
            yield one
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        settings = RedisSettings(kind="redis", url=server.url, files="memory://jobs")
        async with connecting(lambda: RedisStore(settings)) as one:
            yield one


@pytest.fixture
async def store(connect: Connect) -> Store:
    return await connect()


BODY: dict[str, object] = {"prompt": "calm piano", "duration": 2.0, "seed": 7}
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g="


@dataclass
class Working:
    """An application whose jobs are worked on, or only accepted."""

    http: httpx.AsyncClient
    music: FakeLanguageModel
    service: Service
    app: FastAPI

    async def look(self, job: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, job: str, *statuses: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            found = await self.look(job)
            return found if found["status"] in statuses else None

        found: dict[str, Any] = await until_async(there, 20)
        return found


@asynccontextmanager
async def working_in(
    kept: Kept, at_once: int = 2, configured: bool = True, **limits: Any
) -> AsyncIterator[Working]:
    """One replica over a folder or Redis; several may share it."""
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
    ]
    music = FakeLanguageModel()
    handles = {"music": music, "codec": FakeCodec(), "media": Media()}
    store = FolderStore(folder=str(kept)) if isinstance(kept, Path) else kept
    settings = JobsSettings(store=store, webhooks_to_private_addresses=True)
    service = serving(models, handles, UserConfig(**limits), settings=settings)
    if not configured:
        service.configured.clear()
    app = create_app(service, jobs_at_once=at_once)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Working(http, music, service, app)


@pytest.fixture(params=["folder", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Where jobs are kept, in both of the ways."""
    if request.param == "folder":
        return tmp_path
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisSettings(kind="redis", url=server.url, files=str(tmp_path / "files"))


@pytest.fixture
async def working(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Working]:
    monkeypatch.setenv(WEBHOOK_SECRETS, SECRET)
    async with working_in(kept) as one:
        yield one


async def waiting(store: Store) -> int:
    """Return how many jobs nobody works on."""
    return await store.count_waiting("job")


async def made(working: Working, body: object = BODY, **headers: str) -> dict[str, object]:
    answer = await working.http.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, object] = answer.json()
    return found
