"""A request waits for a free slot, and gets the first that there is; other calls do not wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.request_router import PendingRequest, ReplicaID

from deployments.scaling import router as routing
from deployments.scaling.router import FreeSlotRouter

MUSIC = DeploymentID("music", "audiocraft")


@dataclass
class Replica:
    """What a router sees of one."""

    name: str
    taken: int = 0
    """As it answers when it is asked."""
    routing_stats: dict[str, int] = field(default_factory=lambda: {"slots": 2})
    max_ongoing_requests: int = 66

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(self.name, MUSIC)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return self.taken


class Desk:
    """Routes requests as a handle does, and ends them."""

    def __init__(self, *replicas: Replica) -> None:
        self.router = FreeSlotRouter(
            MUSIC,
            DeploymentHandleSource.REPLICA,
            use_replica_queue_len_cache=True,
        )
        self.router.initialize_state(slots=2)
        self.router.update_replicas(list(replicas))
        self.number = 0

    def ask(self, method: str = "generate") -> asyncio.Task[Any]:
        self.number += 1
        metadata = RequestMetadata(
            request_id=str(self.number),
            internal_request_id=str(self.number),
            call_method=method,
        )
        return asyncio.create_task(
            self._route(PendingRequest(args=[], kwargs={}, metadata=metadata))
        )

    async def _route(self, request: PendingRequest) -> str:
        replica = await self.router._choose_replica_for_request(request)
        self.router.on_send_request(replica.replica_id)
        replica.taken += 1
        return str(replica.name)

    def end(self, replica: str) -> None:
        which = ReplicaID(replica, MUSIC)
        self.router.curr_replicas[which].taken -= 1
        self.router.decrement_queue_len_cache(which)


async def settled(*tasks: asyncio.Task[Any]) -> list[str | None]:
    """Return where requests went once nothing more happens by itself."""
    for _ in range(50):
        await asyncio.sleep(0)
    return [task.result() if task.done() else None for task in tasks]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk(Replica("a"), Replica("b"))
    await settled()
    yield made
    for task in list(made.router._routing_tasks):
        task.cancel()
    await asyncio.gather(*made.router._routing_tasks, return_exceptions=True)


async def test_the_emptiest_gets_it(desk: Desk):
    went = await settled(*(desk.ask() for _ in range(4)))
    assert sorted(map(str, went)) == ["a", "a", "b", "b"]
    assert set(went[:2]) == {"a", "b"}


async def test_who_finds_no_slot_waits_for_the_first_that_is_free(desk: Desk):
    await settled(*(desk.ask() for _ in range(4)))
    fifth, sixth = desk.ask(), desk.ask()
    assert await settled(fifth, sixth) == [None, None]
    desk.end("b")
    assert await settled(fifth, sixth) == ["b", None], "in the order of arrival"
    desk.end("a")
    assert await settled(sixth) == ["a"]


async def test_many_at_once_do_not_take_one_slot_twice(desk: Desk):
    tasks = [desk.ask() for _ in range(30)]
    went = await settled(*tasks)
    assert [went.count(name) for name in ("a", "b", None)] == [2, 2, 26]
    for ended, name in enumerate("aabb" * 5):
        desk.end(name)
        went = await settled(*tasks)
        assert went.count(None) == 25 - ended
    await asyncio.gather(*[task for task in tasks if task.cancel()], return_exceptions=True)


async def test_other_calls_do_not_wait(desk: Desk):
    waiting = [desk.ask() for _ in range(12)]
    await settled(*waiting)
    assert (await settled(desk.ask("load")))[0] in ("a", "b")
    went = await settled(*waiting)
    assert went.count(None) == 8, "none got a slot that there is not"
    await asyncio.gather(*[task for task in waiting if task.cancel()], return_exceptions=True)


async def test_a_new_replica_takes_from_the_queue(desk: Desk):
    await settled(*(desk.ask() for _ in range(4)))
    waiting = [desk.ask() for _ in range(3)]
    await settled()
    old = list(desk.router.curr_replicas.values())
    desk.router.update_replicas([*old, Replica("new")])
    went = await asyncio.wait_for(asyncio.gather(*waiting[:2]), 5)
    assert went == ["new", "new"]
    waiting[2].cancel()


async def test_who_leaves_while_it_waits_takes_no_slot(desk: Desk):
    await settled(*(desk.ask() for _ in range(4)))
    leaving, staying = desk.ask(), desk.ask()
    await settled()
    leaving.cancel()
    await settled()
    desk.end("a")
    assert await settled(staying) == ["a"]


async def test_slots_that_other_ingresses_took_are_seen_when_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(routing, "PROBE_AFTER_S", 0.01)
    for replica in desk.router.curr_replicas.values():
        replica.taken = 2
        desk.router.on_new_queue_len_info(replica.replica_id, 2)
    waiting = desk.ask()
    assert await settled(waiting) == [None]
    desk.router.curr_replicas[ReplicaID("b", MUSIC)].taken = 1
    assert await asyncio.wait_for(waiting, 5) == "b"


async def test_a_slot_that_was_given_and_not_used_comes_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(routing, "IN_TRANSIT_S", 0.05)
    monkeypatch.setattr(routing, "PROBE_AFTER_S", 0.01)
    for replica in desk.router.curr_replicas:
        desk.router._in_transit[replica] = [time.monotonic()] * 2
    waiting = desk.ask()
    assert await settled(waiting) == [None]
    assert await asyncio.wait_for(waiting, 5) in ("a", "b")


async def test_replicas_say_how_many_slots_they_have():
    desk = Desk(Replica("a", routing_stats={"slots": 1}), Replica("b", routing_stats={}))
    await settled()
    tasks = [desk.ask() for _ in range(4)]
    went = await settled(*tasks)
    assert [went.count(name) for name in ("a", "b", None)] == [1, 2, 1]
    tasks[went.index(None)].cancel()
    for task in list(desk.router._routing_tasks):
        task.cancel()
