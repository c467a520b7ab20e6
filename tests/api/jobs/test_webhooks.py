"""Webhooks: signed, told again until they are taken, and sent nowhere that is not allowed."""

import asyncio
import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api.settings import WEBHOOK_SECRETS, KeySettings, UserConfig, read_webhook_secrets
from engine.errors import GenerationFailed
from graph.errors import ApiError
from graph.jobs import webhooks
from graph.jobs.job import Job
from graph.jobs.webhooks import Webhooks, is_public
from graph.settings import JobsSettings
from tests.api.jobs.conftest import BODY, SECRET, Kept, Working, made, working_in
from tests.api.test_admission import hashed
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
    await working.http.post(f"/v1/jobs/{job['id']}/cancel")
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
        running = await store.take_work("webhook", [])
        return running is None and await store.count_waiting("webhook") == 0

    await until_async(nothing_left, 20)
    assert len(receiver.got) == 2


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "2002:0a00:0001::", "64:ff9b::a9fe:a9fe", "::", "fec0::1",
        "64:ff9b:1::1", "::127.0.0.1", "ff0e::1", "240.0.0.1", "255.255.255.255", "2001:db8::1",
        "2001::1",
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
def test_what_is_refused_when_a_job_is_accepted(address: str):
    hooks = Webhooks(JobsSettings(webhook_hosts=("example.com", "*.example.com")), of_everyone)
    with pytest.raises(ApiError, match="webhook"):
        hooks.check_address(address, "everyone")
    hooks.check_address("https://hooks.example.com/path?x=1", "everyone")


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..example", ".example", "a.example.", "xn--a.example",
             ".".join(["a" * 60] * 5)],
)  # fmt: skip
async def test_hosts_that_no_name_server_knows_are_refused(working: Working, host: str):
    body = BODY | {"webhook": f"https://{host}/"}
    answer = await working.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "webhook_not_allowed"


def test_without_a_secret_there_are_none():
    with pytest.raises(ApiError, match="webhook_secrets"):
        Webhooks(JobsSettings(), lambda _: []).check_address("https://example.com/", "everyone")


@pytest.mark.parametrize(
    "secret", ["whsec_not-base64-but-long-enough-to-be-a-secret", "whsec_", "whsec_c2hvcnQ="]
)
def test_a_secret_that_is_none_is_said_at_the_start(secret: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WEBHOOK_SECRETS, secret)
    with pytest.raises(ValueError, match=WEBHOOK_SECRETS) as raised:
        read_webhook_secrets()
    assert secret == "whsec_" or secret not in str(raised.value)


async def test_names_that_lead_inside_are_not_followed(tmp_path: Path, receiver: Receiver):
    """A public name may have a private address: what counts is where the connection goes."""
    hooks = Webhooks(JobsSettings(), of_everyone)
    url = f"https://localhost:{receiver.port}/"
    hooks.check_address(url, "everyone")
    job = await some_job(tmp_path, url)
    assert await hooks.send_event(job, "finished", 1) == webhooks.AGAIN_AFTER_S[0]
    assert not receiver.got


@pytest.mark.parametrize(("certified", "taken"), [("localhost", True), ("example.com", False)])
async def test_certificates_are_checked_by_name_though_the_address_is_pinned(
    certified: str, taken: bool, tmp_path: Path
):
    authority = trustme.CA()
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(certified).configure_cert(of_server)
    hooks = Webhooks(JobsSettings(webhooks_to_private_addresses=True), of_everyone)
    authority.configure_trust(hooks._tls)
    async with receiving(of_server) as receiver:
        job = await some_job(tmp_path, f"https://localhost:{receiver.port}/")
        again = await hooks.send_event(job, "finished", 1)
    assert (again is None, len(receiver.got)) == (taken, int(taken))


def of_everyone(_key: str) -> list[str]:
    return [SECRET]


async def some_job(folder: Path, webhook: str) -> Job:
    async with working_in(folder, at_once=0) as working:
        name = (await made(working))["id"]
        job = await working.service.jobs.find_job(name, "everyone")
        return job.model_copy(update={"webhook": webhook})


@pytest.mark.parametrize("problem", [LookupError("x"), UnicodeError("x"), ValueError("x")])
async def test_every_error_counts_as_an_attempt(
    tmp_path: Path, problem: Exception, monkeypatch: pytest.MonkeyPatch
):
    """So that each delivery ends, whatever is wrong with it."""
    hooks = Webhooks(JobsSettings(), of_everyone)

    async def fail(*_: object) -> int:
        raise problem

    monkeypatch.setattr(hooks, "_post_event", fail)
    job = await some_job(tmp_path, "https://example.com/")
    pauses = [await hooks.send_event(job, "finished", attempt) for attempt in range(1, 9)]
    assert pauses == [*webhooks.AGAIN_AFTER_S, None]


async def test_looking_up_a_name_is_within_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A name server that does not answer ends the attempt, and blocks no other use of threads."""
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.2)
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: answers.wait(30))
    hooks = Webhooks(JobsSettings(), of_everyone)
    job = await some_job(tmp_path, "https://example.com/")
    sending = [hooks.send_event(job, "finished", 1) for _ in range(webhooks.AT_ONCE)]
    pauses = await asyncio.wait_for(asyncio.gather(*sending), 10)
    assert pauses == [webhooks.AGAIN_AFTER_S[0]] * len(sending)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 10)
    answers.set()
    hooks.close()


@asynccontextmanager
async def dead_receiver() -> AsyncIterator[str]:
    """An address that takes connections, and never answers."""

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield f"http://localhost:{server.sockets[0].getsockname()[1]}/"
    for writer in writers:
        writer.close()
    server.close()


async def test_dead_receivers_hold_up_nobody_else(working: Working, receiver: Receiver):
    """Neither the jobs nor the deliveries of others."""
    async with AsyncExitStack() as stack:
        dead = [await stack.enter_async_context(dead_receiver()) for _ in range(4)]
        for url in dead * 3:
            await made(working, BODY | {"webhook": url})
        await made(working, BODY | {"webhook": receiver.url})
        before = time.monotonic()
        await told(receiver, "job.started", "job.finished")
        assert time.monotonic() - before < webhooks.TIMEOUT_S


async def test_webhooks_wait_for_no_jobs(kept: Kept, receiver: Receiver, keyless: None):
    """A job runs in the only place; the event of its start is sent meanwhile."""
    async with working_in(kept, at_once=1) as working:
        working.music.gate = asyncio.Event()
        await made(working, BODY | {"webhook": receiver.url})
        await told(receiver, "job.started")
        working.music.gate.set()
        await told(receiver, "job.finished")


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_SECRETS, SECRET)


async def test_each_key_has_secrets_of_its_own(working: Working, receiver: Receiver):
    """What one key's secret signs is no event of another; the environment's signs for none."""
    secrets = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in range(3)]
    working.service.limits = UserConfig(
        keys=(
            KeySettings(name="one", sha256=hashed("one"), webhook_secrets=secrets[:2]),
            KeySettings(name="two", sha256=hashed("two"), webhook_secrets=secrets[2:]),
            KeySettings(name="none", sha256=hashed("none")),
        )
    )
    body = BODY | {"webhook": receiver.url}
    headers = {name: {"authorization": f"Bearer {name}"} for name in ("one", "two", "none")}
    refused = await working.http.post("/v1/jobs", json=body, headers=headers["none"])
    assert refused.status_code == 422
    await made(working, body, **headers["one"])
    await told(receiver, "job.started", "job.finished")
    for sent, content in receiver.got:
        for secret in secrets[:2]:
            Webhook(secret).verify(content, sent)
        for secret in (secrets[2], SECRET):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(content, sent)


def test_two_keys_share_no_secret():
    with pytest.raises(ValueError, match="same webhook secret") as raised:
        UserConfig(
            keys=tuple(
                KeySettings(name=name, sha256=hashed(name), webhook_secrets=[SECRET])
                for name in ("one", "two")
            )
        )
    assert SECRET not in str(raised.value)


async def test_both_secrets_sign_while_they_are_changed(
    kept: Kept, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    newer = "whsec_YSBuZXdlciBzZWNyZXQgb2YgdGhlIHRlc3RzIQ=="
    monkeypatch.setenv(WEBHOOK_SECRETS, f"{newer} {SECRET}")
    async with working_in(kept) as working:
        await made(working, BODY | {"webhook": receiver.url})
        await told(receiver, "job.started", "job.finished")
    for headers, body in receiver.got:
        for secret in (SECRET, newer):
            Webhook(secret).verify(body, headers)
