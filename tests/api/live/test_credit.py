"""How far ahead a session may be, by a clock of the test's own."""

import asyncio

import pytest

from graph.errors import ApiError
from graph.live.credit import Credit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_was_played_is_said_and_never_before_its_time():
    clock = Clock()
    credit = Credit(3, 1, clock)
    assert credit.compute_missing() == (-3, -3)
    credit.add_sent(4)
    credit.add_sent(2)
    assert credit.compute_missing() == (3, 3)
    credit.set_played(2)
    assert credit.compute_missing() == (1, 3)
    clock.now += 2.5
    assert credit.compute_missing() == (1, 0.5)
    credit.set_played(1)
    credit.set_played(99)
    assert credit.compute_missing() == (-3, 0.5)


async def test_there_is_room_once_it_was_played():
    clock = Clock()
    credit = Credit(3, 20, clock)
    credit.add_sent(4)
    clock.now += 10
    waiting = asyncio.create_task(credit.wait_for_room())
    await asyncio.sleep(0)
    credit.set_played(0.5)
    await asyncio.sleep(0)
    assert not waiting.done()
    credit.set_played(1)
    await waiting


async def test_without_a_word_it_ends():
    credit = Credit(3, 0.05)
    credit.add_sent(4)
    with pytest.raises(ApiError) as raised:
        await credit.wait_for_room()
    assert (raised.value.status, raised.value.code) == (408, "idle")
