"""Which pages may call from a browser."""

from collections.abc import AsyncIterator

import httpx
import pytest

from api.ingress import create_app
from tests.api.conftest import Server

OURS, OTHER = "https://studio.example", "https://other.example"
ASKS = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
BODY = {"text": "calm piano", "duration": 1}


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(server.service, (OURS,)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_an_allowed_page_reads_answers_and_their_headers(http: httpx.AsyncClient):
    answer = await http.post("/generate/music", json=BODY, headers={"origin": OURS})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == OURS
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-credentials" not in answer.headers


async def test_another_page_does_not(http: httpx.AsyncClient):
    answer = await http.post("/generate/music", json=BODY, headers={"origin": OTHER})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_is_answered(http: httpx.AsyncClient):
    asked = await http.options("/generate/music", headers={"origin": OURS, **ASKS})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == OURS
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
    refused = await http.options("/generate/music", headers={"origin": OTHER, **ASKS})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    ("path", "headers", "content", "status"),
    [
        ("/generate/music", {"host": "evil.example"}, b"", 403),  # by the guard
        ("/nowhere", {}, b"", 404),
        ("/generate/music", {"content-type": "application/json"}, b"x" * 3000, 413),
        ("/generate/music", {"content-type": "text/plain"}, b"", 415),
        ("/generate/music", {"content-type": "application/json"}, b"{}", 422),
    ],
)
async def test_an_allowed_page_reads_errors_too(
    http: httpx.AsyncClient, path: str, headers: dict[str, str], content: bytes, status: int
):
    answer = await http.post(path, content=content, headers={"origin": OURS, **headers})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == OURS
    assert answer.json()["error"]["message"]


async def test_none_is_allowed_by_default(server: Server):
    answer = await server.http.post("/generate/music", json=BODY, headers={"origin": OURS})
    asked = await server.http.options("/generate/music", headers={"origin": OURS, **ASKS})
    assert (answer.status_code, asked.status_code) == (403, 403)
    for one in (answer, asked):
        assert not [name for name in one.headers if name.startswith("access-control")]
