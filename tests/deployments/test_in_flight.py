"""Tests that one ingress computes an answer that several ingresses need."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.accounts import LEASE_S
from deployments.in_flight import AnswersInFlight
from graph.admission import LedgerClient
from graph.cache import Answer, Cache
from tests.api.conftest import LocalLedger


class AnswerSource:
    """Computes and counts answers when `ready` is set."""

    def __init__(self) -> None:
        self.begun, self.fails = 0, False
        self.ready = asyncio.Event()

    async def make_answer(self) -> Answer:
        self.begun += 1
        await self.ready.wait()
        if self.fails:
            self.fails = False
            raise ValueError
        return Answer(b"made %d" % self.begun, "audio/wav", {})


class Ingresses:
    """Three ingresses, each with its own client of one ledger."""

    def __init__(self) -> None:
        self.ledger, self.source = LocalLedger(), AnswerSource()
        self.clients = [LedgerClient(self.ledger) for _ in range(3)]
        self.caches = [Cache(lambda: 0, client) for client in self.clients]  # which store nothing

    def send_request(self, ingress: int) -> asyncio.Task[tuple[bytes, bool]]:
        async def get_answer() -> tuple[bytes, bool]:
            answer, found = await self.caches[ingress].get_answer("key", self.source.make_answer)
            return answer.body, found == "joined"

        return asyncio.create_task(get_answer())

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in self.ledger.in_flight.by_key.values())

    async def wait_for_waiters(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.waiting != number or not self.source.begun:
                await asyncio.sleep(0)


@pytest.fixture
async def ingresses() -> AsyncIterator[Ingresses]:
    made = Ingresses()
    yield made
    for client in made.clients:
        await client.wait_for_calls()
        await client.close()
    assert not made.ledger.in_flight.by_key


async def test_one_ingress_computes_and_the_others_receive(ingresses: Ingresses):
    tasks = [ingresses.send_request(number) for number in range(3)]
    await ingresses.wait_for_waiters(2)
    ingresses.source.ready.set()
    answers = await asyncio.gather(*tasks)
    assert [answer for answer, _ in answers] == [b"made 1"] * 3
    assert sorted(joined for _, joined in answers) == [False, True, True]


async def test_a_later_request_computes_again(ingresses: Ingresses):
    ingresses.source.ready.set()
    for number in (1, 2):
        assert await ingresses.send_request(0) == (b"made %d" % number, False)
        await ingresses.clients[0].wait_for_calls()


async def test_another_ingress_computes_after_a_failure(ingresses: Ingresses):
    ingresses.source.fails = True
    tasks = [ingresses.send_request(number) for number in range(3)]
    await ingresses.wait_for_waiters(2)
    ingresses.source.ready.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, ValueError) for one in answers) == 1, (
        "the ingress that failed gets the error"
    )
    assert ingresses.source.begun == 2


async def test_another_ingress_computes_after_a_cancellation(ingresses: Ingresses):
    first = ingresses.send_request(0)
    await ingresses.wait_for_waiters(0)
    second = ingresses.send_request(1)
    await ingresses.wait_for_waiters(1)
    first.cancel()
    ingresses.source.ready.set()
    assert await second == (b"made 2", False)


async def test_a_waiting_request_may_be_cancelled(ingresses: Ingresses):
    first = ingresses.send_request(0)
    await ingresses.wait_for_waiters(0)
    second = ingresses.send_request(1)
    await ingresses.wait_for_waiters(1)
    second.cancel()
    await ingresses.wait_for_waiters(0)
    ingresses.source.ready.set()
    assert await first == (b"made 1", False)


async def test_each_ingress_computes_without_the_ledger(ingresses: Ingresses):
    ingresses.ledger.reached = False
    ingresses.source.ready.set()
    answers = await asyncio.gather(*(ingresses.send_request(number) for number in range(3)))
    assert [joined for _, joined in answers] == [False] * 3


async def test_a_silent_ingress_loses_its_attempts():
    now = 100.0
    in_flight = AnswersInFlight(lambda: now)
    assert in_flight.claim_answer("gone", "1", "key")
    waiting = asyncio.create_task(in_flight.wait_for_answer("key"))
    await asyncio.sleep(0)
    in_flight.drop_silent_ingresses({"other"})
    assert not in_flight.claim_answer("other", "2", "key"), "the ingress may be new"
    now += LEASE_S + 1
    in_flight.drop_silent_ingresses({"other", "gone"})
    assert not in_flight.claim_answer("other", "2", "key"), "the ingress is alive"
    in_flight.drop_silent_ingresses({"other"})
    assert await waiting is None
    assert in_flight.claim_answer("other", "2", "key")
    in_flight.deliver_answer("1", "key", b"late")
    assert in_flight.by_key["key"].number == "2"
