"""The turns of owners in both stores, and the lanes of their work."""

import asyncio

import pytest

from graph.jobs.store import Store, Taken, Work
from tests.api.jobs.test_store import _true, job, served, take_names
from tests.waiting import until_async


async def test_owners_take_turns(store: Store):
    """One job of an owner does not wait behind the thousand of another."""
    for number in range(20):
        await store.put_work(job(number, owner="one"))
    await take_names(store, 3)
    await store.put_work(job(100, owner="other"))
    await store.put_work(job(101, owner="other"))
    assert (await store.find_places("job", ["job_100"]))["job_100"].position <= 2
    names = await take_names(store, 6)
    assert names.index("job_100") <= 1
    assert names.index("job_101") <= 3


async def test_turns_are_by_weight_and_price(store: Store):
    """Weight 3 gets thrice the row-seconds of weight 1, however large each job is."""
    for number in range(40):
        await store.put_work(job(number, owner="heavy", weight=3.0, price=6.0))
        await store.put_work(job(100 + number, owner="light", weight=1.0, price=1.0))
    names = await take_names(store, 30)
    heavy = 6.0 * sum(int(name[4:]) < 100 for name in names)
    light = 1.0 * sum(int(name[4:]) >= 100 for name in names)
    assert heavy / light == pytest.approx(3, rel=0.15)


async def test_withdrawn_work_takes_no_turn(store: Store):
    """Whose thousand jobs were cancelled does not wait as if they had been done."""
    await store.put_work(job(0, owner="other"))
    for number in range(1, 50):
        await store.put_work(job(number, owner="one"))
    for number in range(1, 50):
        await store.withdraw_work("job", f"job_{number}")
    await store.put_work(job(50, owner="other"))
    await store.put_work(job(51, owner="one"))
    assert await take_names(store) == ["job_0", "job_51", "job_50"]


async def test_closed_lanes_are_passed_over(store: Store):
    await store.put_work(job(1))
    await store.put_work(job(2, target="sound"))
    taken = await store.take_work("job", [job(1).lane])
    assert taken == Taken(job(2, target="sound"), 1, taken.holder)
    assert await store.take_work("job", [job(1).lane]) is None


async def test_work_that_is_refused_pauses_its_lane_alone(store: Store):
    """Others behind it begin at once, and those of its lane keep their order."""
    begun: list[str] = []

    async def handle(work: Work, attempt: int) -> float | None:
        begun.append(work.name)
        return 30.0 if work.target == "music" else None

    for number in range(30):
        await store.put_work(job(number))
    await store.put_work(job(100, target="sound"))
    async with served(store, handle, most=1, pauses=True):
        await until_async(lambda: _true("job_100" in begun))
    assert begun == ["job_0", "job_100"]
    assert await take_names(store, 2) == ["job_0", "job_1"]


async def test_a_lane_has_so_much_at_once(store: Store):
    """Receivers that do not answer hold up no other."""
    begun: list[str] = []

    async def handle(work: Work, attempt: int) -> float | None:
        begun.append(work.name)
        await asyncio.Event().wait()
        return None

    for number in range(10):
        await store.put_work(job(number, target="dead"))
    await store.put_work(job(100, target="alive"))
    async with served(store, handle, most=6, of_a_lane=4):
        await until_async(lambda: _true("job_100" in begun))
    assert sorted(begun) == ["job_0", "job_1", "job_100", "job_2", "job_3"]
