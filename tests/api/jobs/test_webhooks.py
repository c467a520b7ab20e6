"""Webhooks: signed, told again until they are taken, and sent nowhere that is not allowed."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from engine.errors import GenerationFailed
from graph.errors import ApiError
from graph.jobs import webhooks
from graph.jobs.job import Job
from graph.jobs.webhooks import SECRETS, Webhooks, is_public
from graph.settings import JobsSettings
from tests.api.jobs.conftest import BODY, SECRET, Working, made, working_in
from tests.waiting import until_async


@dataclass
class Receiver:
    """Takes what is posted to it, over real sockets; answers with what it is told to."""

    port: int
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; then 204."""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook?x=1"

    def told(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        one.got.append(({"request": head.split("\r\n")[0], **headers}, body))
        status = one.statuses.pop(0) if one.statuses else 204
        location = "location: http://localhost:1/\r\n" if status == 302 else ""
        reply = f"HTTP/1.1 {status} X\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n"
        writer.write(reply.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    one = Receiver(server.sockets[0].getsockname()[1])
    async with server:
        yield one


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "AGAIN_AFTER_S", (0.05, 0.05, 0.05))


async def told(receiver: Receiver, *kinds: str) -> None:
    async def all_of_them() -> bool:
        return set(receiver.told()) >= set(kinds)

    await until_async(all_of_them, 20)


async def test_start_and_end_are_told_and_signed(working: Working, receiver: Receiver):
    job = await made(working, BODY | {"webhook": receiver.url})
    await told(receiver, "job.started", "job.finished")
    for headers, body in receiver.got:
        data = Webhook(SECRET).verify(body, headers)
        assert data["data"]["id"] == job["id"]
        assert data["data"]["seed"] == 7
        assert headers["request"] == "POST /hook?x=1 HTTP/1.1"
        assert headers["host"] == f"localhost:{receiver.port}"
        assert headers["webhook-id"].startswith(job["id"])
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"music", b"sound"), headers)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


async def test_failures_and_cancelling_are_told(working: Working, receiver: Receiver):
    working.music.error = GenerationFailed("step 3")
    await made(working, BODY | {"webhook": receiver.url})
    await told(receiver, "job.failed")
    failed = next(json.loads(b) for _, b in receiver.got if b"job.failed" in b)
    assert failed["data"]["error"]["code"] == "generation_failed"
    working.music.error, working.music.gate = None, asyncio.Event()
    job = await made(working, BODY | {"webhook": receiver.url})
    await working.until(job["id"], "running")
    await working.http.delete(f"/v1/jobs/{job['id']}")
    await told(receiver, "job.cancelled")


@pytest.mark.usefixtures("soon")
async def test_it_is_told_again_under_the_same_id(working: Working, receiver: Receiver):
    receiver.statuses = [500, 302, 404]
    await made(working, BODY | {"webhook": receiver.url})
    await told(receiver, "job.finished")

    async def all_taken() -> bool:
        return len(receiver.got) == 2 + 3

    await until_async(all_taken, 20)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


@pytest.mark.usefixtures("soon")
async def test_it_is_given_up_in_the_end(
    working: Working, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    receiver.statuses = [500] * 100
    await made(working, BODY | {"webhook": receiver.url})

    async def given_up() -> bool:
        return sum("given up" in record.message for record in caplog.records) == 2

    await until_async(given_up, 20)
    assert len(receiver.got) == 2 * (1 + 3)


@pytest.mark.usefixtures("soon")
async def test_who_is_gone_is_left_alone(working: Working, receiver: Receiver):
    receiver.statuses = [410, 410]
    job = await made(working, BODY | {"webhook": receiver.url})
    await working.until(job["id"], "finished")
    await told(receiver, "job.started", "job.finished")

    async def nothing_left() -> bool:
        store = working.service.jobs.store
        return not await store._run_sql("select 1 from work")

    await until_async(nothing_left, 20)
    assert len(receiver.got) == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "2002:0a00:0001::", "64:ff9b::a9fe:a9fe", "::",
    ],
)  # fmt: skip
def test_private_addresses(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1:8443/",
        "https://user:pass@example.com/", "gopher://example.com/", "https://", "//example.com",
        "https://elsewhere.org/", "https://example.com.evil.org/", "not an address", "https://[::",
    ],
)  # fmt: skip
def test_what_is_refused_when_a_job_is_accepted(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SECRETS, SECRET)
    hooks = Webhooks(JobsSettings(webhook_hosts=("example.com", "*.example.com")))
    with pytest.raises(ApiError, match="webhook"):
        hooks.check_address(address)
    hooks.check_address("https://hooks.example.com/path?x=1")


def test_without_a_secret_there_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(SECRETS, raising=False)
    with pytest.raises(ApiError, match=SECRETS):
        Webhooks(JobsSettings()).check_address("https://example.com/")


@pytest.mark.parametrize(
    "secret", ["whsec_not-base64-but-long-enough-to-be-a-secret", "whsec_", "whsec_c2hvcnQ="]
)
def test_a_secret_that_is_none_is_said_at_the_start(secret: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SECRETS, secret)
    with pytest.raises(ValueError, match=SECRETS) as raised:
        Webhooks(JobsSettings())
    assert secret == "whsec_" or secret not in str(raised.value)


async def test_names_that_lead_inside_are_not_followed(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """A public name may have a private address: what counts is where the connection goes."""
    monkeypatch.setenv(SECRETS, SECRET)
    hooks = Webhooks(JobsSettings())
    url = f"https://localhost:{receiver.port}/"
    hooks.check_address(url)
    job = await some_job(tmp_path)
    assert await hooks.send_event(job, "finished", url, 1) == webhooks.AGAIN_AFTER_S[0]
    assert not receiver.got


@pytest.mark.parametrize(("certified", "taken"), [("localhost", True), ("example.com", False)])
async def test_certificates_are_checked_by_name_though_the_address_is_pinned(
    certified: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(SECRETS, SECRET)
    authority = trustme.CA()
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(certified).configure_cert(of_server)
    hooks = Webhooks(JobsSettings(webhooks_to_private_addresses=True))
    authority.configure_trust(hooks._tls)
    job = await some_job(tmp_path)
    async with receiving(of_server) as receiver:
        url = f"https://localhost:{receiver.port}/"
        again = await hooks.send_event(job, "finished", url, 1)
    assert (again is None, len(receiver.got)) == (taken, int(taken))


async def some_job(folder: Path) -> Job:
    async with working_in(folder, at_once=0) as working:
        job = await made(working)
        return await working.service.jobs.find_job(job["id"], "everyone")


async def test_both_secrets_sign_while_they_are_changed(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    newer = "whsec_YSBuZXdlciBzZWNyZXQgb2YgdGhlIHRlc3RzIQ=="
    monkeypatch.setenv(SECRETS, f"{newer} {SECRET}")
    async with working_in(tmp_path) as working:
        await made(working, BODY | {"webhook": receiver.url})
        await told(receiver, "job.started", "job.finished")
    for headers, body in receiver.got:
        for secret in (SECRET, newer):
            Webhook(secret).verify(body, headers)
