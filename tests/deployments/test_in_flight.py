"""Who makes an answer that several ingresses are asked for at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.accounts import LEASE_S
from deployments.in_flight import AnswersInFlight
from graph.admission import LedgerClient
from graph.cache import Answer, Cache
from tests.api.conftest import LocalLedger


class Kitchen:
    """Makes answers when it is let, and counts."""

    def __init__(self) -> None:
        self.begun, self.fails = 0, False
        self.ready = asyncio.Event()

    async def make(self) -> Answer:
        self.begun += 1
        await self.ready.wait()
        if self.fails:
            self.fails = False
            raise ValueError
        return Answer(b"made %d" % self.begun, "audio/wav", {})


class Ingresses:
    """Three of them, each with its own client of one ledger."""

    def __init__(self) -> None:
        self.ledger, self.kitchen = LocalLedger(), Kitchen()
        self.clients = [LedgerClient(self.ledger) for _ in range(3)]
        self.caches = [Cache(lambda: 0, client) for client in self.clients]  # which keep nothing

    def ask(self, ingress: int) -> asyncio.Task[tuple[bytes, bool]]:
        async def ask() -> tuple[bytes, bool]:
            answer, found = await self.caches[ingress].get_answer("key", self.kitchen.make)
            return answer.body, found == "joined"

        return asyncio.create_task(ask())

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in self.ledger.in_flight.by_key.values())

    async def until_waiting(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.waiting != number or not self.kitchen.begun:
                await asyncio.sleep(0)


@pytest.fixture
async def ingresses() -> AsyncIterator[Ingresses]:
    made = Ingresses()
    yield made
    for client in made.clients:
        await client.wait_for_calls()
        await client.close()
    assert not made.ledger.in_flight.by_key


async def test_one_makes_it_and_the_others_get_it(ingresses: Ingresses):
    tasks = [ingresses.ask(number) for number in range(3)]
    await ingresses.until_waiting(2)
    ingresses.kitchen.ready.set()
    answers = await asyncio.gather(*tasks)
    assert [answer for answer, _ in answers] == [b"made 1"] * 3
    assert sorted(joined for _, joined in answers) == [False, True, True]


async def test_what_has_ended_is_made_anew(ingresses: Ingresses):
    ingresses.kitchen.ready.set()
    for number in (1, 2):
        assert await ingresses.ask(0) == (b"made %d" % number, False)
        await ingresses.clients[0].wait_for_calls()


async def test_where_it_fails_another_makes_it(ingresses: Ingresses):
    ingresses.kitchen.fails = True
    tasks = [ingresses.ask(number) for number in range(3)]
    await ingresses.until_waiting(2)
    ingresses.kitchen.ready.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, ValueError) for one in answers) == 1, "who made it is told why"
    assert ingresses.kitchen.begun == 2


async def test_where_its_client_leaves_another_makes_it(ingresses: Ingresses):
    first = ingresses.ask(0)
    await ingresses.until_waiting(0)
    second = ingresses.ask(1)
    await ingresses.until_waiting(1)
    first.cancel()
    ingresses.kitchen.ready.set()
    assert await second == (b"made 2", False)


async def test_who_waits_may_leave(ingresses: Ingresses):
    first = ingresses.ask(0)
    await ingresses.until_waiting(0)
    second = ingresses.ask(1)
    await ingresses.until_waiting(1)
    second.cancel()
    await ingresses.until_waiting(0)
    ingresses.kitchen.ready.set()
    assert await first == (b"made 1", False)


async def test_without_the_ledger_each_makes_its_own(ingresses: Ingresses):
    ingresses.ledger.reached = False
    ingresses.kitchen.ready.set()
    answers = await asyncio.gather(*(ingresses.ask(number) for number in range(3)))
    assert [joined for _, joined in answers] == [False] * 3


async def test_a_silent_ingress_makes_nothing_any_more():
    now = 100.0
    in_flight = AnswersInFlight(lambda: now)
    assert in_flight.claim_answer("gone", "1", "key")
    waiting = asyncio.create_task(in_flight.wait_for_answer("key"))
    await asyncio.sleep(0)
    in_flight.drop_silent_ingresses({"other"})
    assert not in_flight.claim_answer("other", "2", "key"), "it may not have been heard of yet"
    now += LEASE_S + 1
    in_flight.drop_silent_ingresses({"other", "gone"})
    assert not in_flight.claim_answer("other", "2", "key"), "it is alive"
    in_flight.drop_silent_ingresses({"other"})
    assert await waiting is None
    assert in_flight.claim_answer("other", "2", "key")
    in_flight.deliver_answer("1", "key", b"late")
    assert in_flight.by_key["key"].number == "2"
