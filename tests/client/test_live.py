"""Tests live sessions against the real route."""

import asyncio

import pytest

from audiocraft_serve import AsyncClient, errors
from audiocraft_serve.live import Passage
from tests.client.conftest import KEY, Served
from tests.waiting import free_port, until_async


async def test_passages_follow_what_is_said(served: Served):
    async with (
        AsyncClient(served.url, KEY) as client,
        client.live(prompt="calm piano", passage=1, seed=7) as session,
    ):
        assert (session.started.seed, session.started.model) == (7, "music")
        heard, passages = 0, list[Passage]()
        async with asyncio.timeout(30):
            async for message in session:
                if isinstance(message, bytes):
                    heard += len(message)
                elif isinstance(message, Passage):
                    passages.append(message)
                    if message.number == 0:
                        await session.say({"tension": 0.9, "location": "city"})
                    if "battle" in message.prompt:
                        await session.stop()
    assert passages[0].prompt == "calm piano"
    assert passages[-1].prompt == "intense battle music, city"
    first, *_, last = passages
    assert last.start < session.started.seconds(heard) <= last.start + last.duration
    assert (first.start, first.duration) == (0, 1)


async def test_what_cannot_be_used_is_told_and_does_not_end_it(served: Served):
    async with (
        AsyncClient(served.url, KEY) as client,
        client.live(prompt="calm piano", passage=1) as session,
    ):
        await session.say({"tension": 3})
        async with asyncio.timeout(30):
            async for message in session:
                if isinstance(message, errors.ApiError):
                    assert message.param == "tension"
                    await session.stop()


async def test_who_is_not_let_in(served: Served):
    async def start(key: str, model: str) -> None:
        async with (
            AsyncClient(served.url, key) as client,
            client.live(prompt="a", model=model),
        ):
            raise AssertionError("the session must not start")

    with pytest.raises(errors.NotFound) as caught:
        await start(KEY, "none")
    assert "valid" in caught.value.message
    with pytest.raises(errors.InvalidApiKey):
        await start("wrong", "music")


async def test_who_leaves_stops_the_work(served: Served):
    served.music.gate = asyncio.Event()  # never set: the generation never ends
    async with AsyncClient(served.url, KEY) as client:
        async with client.live(prompt="a") as session:
            await anext(aiter(session))
            assert served.service.ledger.open

        async def has_no_requests() -> bool:
            return not served.service.ledger.open

        await until_async(has_no_requests)


async def test_nobody_listens():
    async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(errors.NotReachable):
            async with client.live(prompt="a"):
                raise AssertionError("the session must not start")
