"""Answers that are kept, and those that several wait for."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from api.settings import KeySettings, UserConfig
from graph.admission import LedgerClient
from graph.cache import ENTRY_BYTES, Answer, Cache
from tests.api.conftest import LocalLedger, Served
from tests.api.test_uploads import wav

PATH = "/v1/generations"
BODY = {"prompt": "a", "duration": 1, "seed": 4}


class Kitchen:
    """Makes answers when it is let, and counts."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.cache = Cache(lambda: self.most, LedgerClient(LocalLedger()))
        self.ready = asyncio.Event()
        self.begun, self.ended = 0, 0

    async def make(self, size: int = 10) -> Answer:
        self.begun += 1
        try:
            await self.ready.wait()
        finally:
            self.ended += 1
        return Answer(b"x" * size, "audio/wav", {})

    def ask(self, key: str = "k", size: int = 10) -> asyncio.Task[Any]:
        return asyncio.create_task(self.cache.get_answer(key, lambda: self.make(size)))


async def test_many_wait_for_one():
    kitchen = Kitchen()
    tasks = [kitchen.ask() for _ in range(3)]
    await asyncio.sleep(0)
    kitchen.ready.set()
    found = [how for _, how in await asyncio.gather(*tasks)]
    assert found == ["miss", "joined", "joined"]
    assert kitchen.begun == 1
    assert (await kitchen.ask())[1] == "hit"


async def test_the_first_may_leave_and_the_last_ends_it():
    kitchen = Kitchen()
    first, second = kitchen.ask(), kitchen.ask()
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (kitchen.begun, kitchen.ended) == (1, 0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = kitchen.ask()
    kitchen.ready.set()
    assert (await third)[1] == "miss", "it does not join what was cancelled"
    assert (kitchen.begun, kitchen.ended) == (2, 2)
    assert not kitchen.cache._flights or all(
        flight.task.done() for flight in kitchen.cache._flights.values()
    )


async def test_a_failure_is_everyones_and_is_not_answers():
    kitchen = Kitchen()

    async def fail() -> Answer:
        await kitchen.ready.wait()
        raise KeyError

    tasks = [asyncio.create_task(kitchen.cache.get_answer("k", fail)) for _ in range(2)]
    await asyncio.sleep(0)
    kitchen.ready.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in results] == [KeyError, KeyError]
    assert (await kitchen.ask())[1] == "miss"


async def test_it_holds_no_more_than_its_bytes():
    kitchen = Kitchen(most=2 * ENTRY_BYTES + 25)
    kitchen.ready.set()
    for key in "abab":
        await kitchen.ask(key)
    await kitchen.ask("c")
    assert kitchen.cache.find_answer("a") is None, "the least recently used"
    assert kitchen.cache.find_answer("b")
    await kitchen.ask("huge", 2 * ENTRY_BYTES)
    assert kitchen.cache.find_answer("huge") is None
    assert kitchen.cache._bytes == 20 + 2 * ENTRY_BYTES
    kitchen.most = 0
    assert kitchen.cache.find_answer("b") is None, "a lower bound holds at once"
    assert kitchen.cache._bytes == 0


async def test_the_same_request_is_made_once(served: Served):
    first, second = [await served.http.post(PATH, json=BODY) for _ in range(2)]
    assert first.content == second.content
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert len(served.music.seen) == 1
    streamed = await served.http.post(PATH, json=BODY | {"stream": True})
    assert streamed.content == first.content
    await asyncio.gather(*(served.http.post(PATH, json=BODY | {"seed": 9}) for _ in range(4)))
    assert len(served.music.seen) == 2


@pytest.mark.parametrize(
    "more",
    [{"seed": None}, {"cache": False}, {"seed": 5}, {"prompt": "b"}, {"top_k": 9}, {"n": 2},
     {"format": "flac"}, {"fade_in": 0.1}, {"return_codes": True}, {"decoder": "mbd"},
     {"tag_prompt": False}],
)  # fmt: skip
async def test_another_request_is_made(served: Served, more: dict[str, Any]):
    await served.http.post(PATH, json=BODY)
    answer = await served.http.post(PATH, json=BODY | more)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("x-cache") in (None, "miss")
    assert len(served.music.seen) >= 2


async def test_it_can_be_turned_off(served: Served):
    served.service.limits = UserConfig(cache_bytes=0)
    for _ in range(2):
        assert "x-cache" not in (await served.http.post(PATH, json=BODY)).headers
    assert len(served.music.seen) == 2


async def test_uploads_tell_requests_apart_and_are_not_answers(served: Served):
    one, other = wav(0.5, seed=1), wav(0.5, seed=2)  # a file tells the second of its making
    for melody in (one, one, other):
        data = {"prompt": "a", "model": "hum", "duration": "1", "seed": "4"}
        answer = await served.http.post(PATH, data=data, files={"melody": melody})
        assert answer.status_code == 200
    assert len(served.hum.seen) == 2
    assert all(len(repr(key)) < 5000 for key in served.service.executor.cache._answers)


async def test_keys_do_not_see_each_others_answers(served: Served):
    keys = tuple(
        KeySettings(name=name, sha256=(sha256(name.encode()).hexdigest(),)) for name in ("a", "b")
    )
    served.service.limits = UserConfig(keys=keys)
    found = [
        (await served.http.post(PATH, json=BODY, headers={"xi-api-key": name})).headers["x-cache"]
        for name in ("a", "b", "a")
    ]
    assert found == ["miss", "miss", "hit"]
