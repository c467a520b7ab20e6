"""What a browser sends for pages of others does nothing."""

from collections.abc import AsyncIterator
from hashlib import sha256

import httpx
import pytest

from api.ingress import create_app
from api.settings import KeySettings, UserConfig
from tests.api.conftest import Server
from tests.api.test_http import assert_error

FOREIGN = "https://evil.example"
FORM = {"prompt": (None, "calm piano"), "duration": (None, "1"), "n": (None, "4")}


@pytest.mark.parametrize("path", ["/v1/generations", "/v1/workflows/podcast", "/v1/jobs"])
@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://localhost:1234", "http://["])
async def test_a_form_of_a_foreign_page_is_refused(server: Server, path: str, origin: str):
    """A browser sends it without a question, so that it must not run."""
    response = await server.http.post(path, files=FORM, headers={"origin": origin})
    assert_error(response, 403, "origin_not_allowed", None, "cors_origins")
    assert not server.music.seen


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"origin": "https://localhost"},
        {"origin": "https://audio.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
    ],
)
async def test_clients_and_own_pages_may_call(server: Server, headers: dict[str, str]):
    """Clients that are no browser send no origin; a proxy with TLS changes the scheme or host."""
    response = await server.http.post("/v1/generations", files=FORM, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("a.localhost:8000", 200),
        ("127.0.0.1:8000", 200), ("10.1.2.3", 200), ("[::1]:8000", 200), ("[fd00::1]", 200),
        ("evil.example", 403), ("evil.example:8000", 403), ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("notlocalhost", 403), ("", 403),
    ],
)  # fmt: skip
async def test_a_rebound_name_reads_nothing(server: Server, host: str, status: int):
    response = await server.http.get("/v1/models", headers={"host": host})
    assert response.status_code == status
    if status == 403:
        assert_error(response, 403, "host_not_allowed", None, "allowed_hosts")
        assert (await server.http.get("/readyz", headers={"host": host})).status_code == 200


async def test_with_keys_any_name_may_be_used(server: Server):
    keys = (KeySettings(name="studio", sha256=[sha256(b"s").hexdigest()]),)
    server.service.limits = UserConfig(keys=keys)
    headers = {"host": "audio.example", "xi-api-key": "s"}
    assert (await server.http.get("/v1/models", headers=headers)).status_code == 200


@pytest.fixture
async def named(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(server.service, allowed_hosts=["audio.example", "*.svc"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("host", "status"),
    [("audio.example:80", 200), ("a.b.svc", 200), ("localhost", 200), ("b.example", 403)],
)
async def test_configured_names_are_allowed(named: httpx.AsyncClient, host: str, status: int):
    assert (await named.get("/v1/models", headers={"host": host})).status_code == status
