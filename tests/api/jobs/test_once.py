"""`Idempotency-Key` on generations: made once, whoever asks again, and wherever."""

import asyncio
import json
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from engine.errors import GenerationFailed
from graph import idempotency as once
from graph.jobs import store as stores
from tests.api.asgi import asgi, receive_json
from tests.api.jobs.conftest import Kept, Working, working_in
from tests.waiting import until_async

BODY = {"prompt": "calm piano", "duration": 2.0}
KEY = {"idempotency-key": "order 1"}
PATH = "/v1/generations"


async def test_a_retry_gets_the_same_bytes(working: Working):
    first = await working.http.post(PATH, json=BODY, headers=KEY)
    again = await working.http.post(PATH, json=BODY, headers=KEY)
    assert first.status_code == 200
    assert again.content == first.content
    assert again.headers["x-seed"] == first.headers["x-seed"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert "server-timing" in first.headers
    assert "server-timing" not in again.headers
    assert len(working.music.seen) == 1
    other = await working.http.post(PATH, json=BODY, headers={"idempotency-key": "order 2"})
    assert other.headers["x-seed"] != first.headers["x-seed"]


async def test_with_a_seed_what_another_key_made_will_do(working: Working):
    seeded = {**BODY, "seed": 7}
    first = await working.http.post(PATH, json=seeded, headers=KEY)
    other = await working.http.post(PATH, json=seeded, headers={"idempotency-key": "order 2"})
    assert other.content == first.content
    assert "idempotent-replayed" not in other.headers
    assert len(working.music.seen) == 1


async def test_a_retry_on_another_replica_waits_for_the_first(kept: Kept):
    async with working_in(kept) as one, working_in(kept) as other:
        one.music.gate = asyncio.Event()
        first = asyncio.create_task(one.http.post(PATH, json=BODY, headers=KEY))
        await until_async(lambda: _value(one.music.seen))
        retry = asyncio.create_task(other.http.post(PATH, json=BODY, headers=KEY))
        await asyncio.sleep(2 * once.POLL_S)  # it has looked, and found nothing
        assert not retry.done()
        one.music.gate.set()
        assert (await retry).content == (await first).content
        assert not other.music.seen


async def test_it_is_made_to_its_end_though_its_client_leaves(working: Working):
    working.music.gate = asyncio.Event()
    first = asyncio.create_task(working.http.post(PATH, json=BODY, headers=KEY))
    await until_async(lambda: _value(working.music.seen))
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    working.music.gate.set()
    answer = await working.http.post(PATH, json=BODY, headers=KEY)
    assert answer.headers["idempotent-replayed"] == "true"
    assert len(working.music.seen) == 1


async def test_what_failed_is_made_anew(working: Working):
    working.music.error = GenerationFailed("step 3")
    assert (await working.http.post(PATH, json=BODY, headers=KEY)).status_code == 500
    working.music.error = None
    answer = await working.http.post(PATH, json=BODY, headers=KEY)
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


async def test_one_key_is_one_request(working: Working):
    await working.http.post(PATH, json=BODY, headers=KEY)
    answer = await working.http.post(PATH, json=BODY | {"duration": 3.0}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "idempotency_conflict"


async def test_who_died_is_taken_over(kept: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(once, "LEASE_S", 0.6)
    async with working_in(kept) as dead, working_in(kept) as living:
        # Its event loop is gone for good: it neither renews nor ends what it makes.
        claim = once.Claim(fingerprint="x", holder="dead", leased_until=0.0)
        name = "once_x"
        await dead.service.jobs.store.add_text(name, claim.model_dump_json(), 1e12)
        answer, replayed = await living.service.executor.idempotency.get_answer(
            name, "x", lambda: _value(lambda: ANSWER), ExitStack()
        )
        assert not replayed
        assert await living.service.jobs.files.read_file(name, answer.file) == b"audio"


@pytest.mark.slow
async def test_long_work_is_made_once(working: Working, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(once, "LEASE_S", 0.3)
    working.music.gate = asyncio.Event()
    answers = [
        asyncio.create_task(working.http.post(PATH, json=BODY, headers=KEY)) for _ in range(3)
    ]
    await asyncio.sleep(1)  # leases that were not renewed would have ended, thrice
    working.music.gate.set()
    assert len({(await answer).content for answer in answers}) == 1
    assert len(working.music.seen) == 1


@pytest.mark.parametrize("more", [{"stream": True}, {}])
async def test_what_is_not_answered_whole_has_no_key(working: Working, more: dict[str, bool]):
    headers = KEY | ({} if more else {"accept": "text/event-stream"})
    answer = await working.http.post(PATH, json=BODY | more, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "idempotency-key"


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_keys_have_a_length(working: Working, key: str):
    headers = {"idempotency-key": key}
    for path in (PATH, "/v1/jobs"):
        answer = await working.http.post(path, json=BODY, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_header"
    assert not working.music.seen


async def test_bytes_are_counted_until_the_answer_is_kept(working: Working):
    """Also where the client has left before."""
    held = working.service.executor.held_bytes
    working.music.gate = asyncio.Event()
    first = asyncio.create_task(working.http.post(PATH, json=BODY, headers=KEY))
    await until_async(lambda: _value(working.music.seen))
    counted = held.held
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert held.held == counted > 0
    working.music.gate.set()
    await until_async(lambda: _value(not held.held))
    answer = await working.http.post(PATH, json=BODY, headers=KEY)
    assert answer.headers["idempotent-replayed"] == "true"
    assert held.held == 0


async def test_what_failed_leaves_no_bytes_counted(working: Working):
    working.music.error = GenerationFailed("step 3")
    assert (await working.http.post(PATH, json=BODY, headers=KEY)).status_code == 500
    await until_async(lambda: _value(not working.service.executor.held_bytes.held))


PART = 3000
SEVERAL = {"prompt": "calm piano", "duration": 2, "n": 3}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", PART)


@pytest.mark.usefixtures("small_parts")
async def test_first_and_later_answers_are_sent_in_parts(working: Working):
    bodies = []
    for _ in range(2):
        sent = await post_and_read(working)
        assert len(sent) > 10
        assert max(map(len, sent)) <= PART
        bodies.append(b"".join(sent))
    assert bodies[0] == bodies[1]
    assert len(json.loads(bodies[0])["clips"]) == 3
    assert len(working.music.seen) == 3


@pytest.mark.usefixtures("small_parts")
async def test_a_client_that_leaves_while_it_reads_leaves_no_open_file(
    working: Working, tmp_path: Path
):
    with pytest.raises(OSError, match="gone"):
        await post_and_read(working, leave_after=2)

    async def closed() -> bool:
        return not [one for one in psutil.Process().open_files() if "answer-" in one.path]

    await until_async(closed)
    assert working.service.executor.held_bytes.held == 0
    assert len(b"".join(await post_and_read(working))) > 10 * PART


async def post_and_read(working: Working, leave_after: int | None = None) -> list[bytes]:
    """Return the parts of an answer; the client may leave after so many."""
    sent: list[bytes] = []

    def note(message: dict[str, object]) -> None:
        if message.get("body"):
            sent.append(message["body"])
        if len(sent) == leave_after:
            raise OSError("the client is gone")

    headers = {"content-type": "application/json"} | KEY
    await asgi(working.app, PATH, headers, receive_json(SEVERAL), note)
    return sent


ANSWER = once.AnswerParts((b"audio",), "audio/wav", {})


async def _value(value: object) -> object:
    return value
