"""Tests that a request waits for the first free slot, and that other calls do not wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray import cloudpickle
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, ReplicaID

from deployments.capacity import Capacity, get_capacity
from deployments.scaling import router as routing
from deployments.scaling.router import FreeSlotRouter

MUSIC = DeploymentID("music", "audiocraft")


@dataclass
class Replica:
    """The part of a replica that a router uses."""

    name: str
    taken: int = 0
    """The number of running calls, which the replica returns when it is probed."""
    routing_stats: dict[str, float] = field(default_factory=lambda: {"slots": 2})
    max_ongoing_requests: int = 66
    multiplexed_model_ids: tuple[str, ...] = ()
    node_id: str = "node"
    availability_zone: str | None = None

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(self.name, MUSIC)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return self.taken


class Handle:
    """Routes and ends requests as a handle does."""

    def __init__(self, *replicas: Replica) -> None:
        self.router = FreeSlotRouter(
            MUSIC,
            DeploymentHandleSource.REPLICA,
            use_replica_queue_len_cache=True,
        )
        self.router.initialize_state(slots=2)
        self.router.update_replicas(list(replicas))
        self.number = 0

    def send_request(self, method: str = "generate", turn: float = 0.0) -> asyncio.Task[Any]:
        self.number += 1
        metadata = RequestMetadata(
            request_id=str(self.number),
            internal_request_id=str(self.number),
            call_method=method,
        )
        return asyncio.create_task(
            self._route(PendingRequest(args=[None, 50, 15, turn], kwargs={}, metadata=metadata))
        )

    async def _route(self, request: PendingRequest) -> str:
        replica = await self.router._choose_replica_for_request(request)
        self.router.on_send_request(replica.replica_id)
        replica.taken += 1
        return str(replica.name)

    def end_request(self, replica: str) -> None:
        which = ReplicaID(replica, MUSIC)
        self.router.curr_replicas[which].taken -= 1
        self.router.decrement_queue_len_cache(which)


async def settle_requests(*tasks: asyncio.Task[Any]) -> list[str | None]:
    """Wait until the event loop is idle; return the replica of each request."""
    for _ in range(50):
        await asyncio.sleep(0)
    return [task.result() if task.done() else None for task in tasks]


@pytest.fixture
async def handle() -> AsyncIterator[Handle]:
    made = Handle(Replica("a"), Replica("b"))
    await settle_requests()
    yield made
    for task in list(made.router._routing_tasks):
        task.cancel()
    await asyncio.gather(*made.router._routing_tasks, return_exceptions=True)


async def test_the_emptiest_replica_gets_a_request(handle: Handle):
    went = await settle_requests(*(handle.send_request() for _ in range(4)))
    assert sorted(map(str, went)) == ["a", "a", "b", "b"]
    assert set(went[:2]) == {"a", "b"}


async def test_a_request_waits_for_the_first_free_slot(handle: Handle):
    await settle_requests(*(handle.send_request() for _ in range(4)))
    fifth, sixth = handle.send_request(), handle.send_request()
    assert await settle_requests(fifth, sixth) == [None, None]
    handle.end_request("b")
    assert await settle_requests(fifth, sixth) == ["b", None], "in the order of arrival"
    handle.end_request("a")
    assert await settle_requests(sixth) == ["a"]


async def test_many_requests_do_not_take_one_slot_twice(handle: Handle):
    tasks = [handle.send_request() for _ in range(30)]
    went = await settle_requests(*tasks)
    assert [went.count(name) for name in ("a", "b", None)] == [2, 2, 26]
    for ended, name in enumerate("aabb" * 5):
        handle.end_request(name)
        went = await settle_requests(*tasks)
        assert went.count(None) == 25 - ended
    await asyncio.gather(*[task for task in tasks if task.cancel()], return_exceptions=True)


async def test_other_calls_do_not_wait(handle: Handle):
    waiting = [handle.send_request() for _ in range(12)]
    await settle_requests(*waiting)
    assert (await settle_requests(handle.send_request("load")))[0] in ("a", "b")
    went = await settle_requests(*waiting)
    assert went.count(None) == 8, "no request got a slot that does not exist"
    await asyncio.gather(*[task for task in waiting if task.cancel()], return_exceptions=True)


async def test_a_new_replica_gets_waiting_requests(handle: Handle):
    await settle_requests(*(handle.send_request() for _ in range(4)))
    waiting = [handle.send_request() for _ in range(3)]
    await settle_requests()
    old = list(handle.router.curr_replicas.values())
    handle.router.update_replicas([*old, Replica("new")])
    went = await asyncio.wait_for(asyncio.gather(*waiting[:2]), 5)
    assert went == ["new", "new"]
    waiting[2].cancel()


async def test_a_cancelled_request_takes_no_slot(handle: Handle):
    await settle_requests(*(handle.send_request() for _ in range(4)))
    leaving, staying = handle.send_request(), handle.send_request()
    await settle_requests()
    leaving.cancel()
    await settle_requests()
    handle.end_request("a")
    assert await settle_requests(staying) == ["a"]


async def test_probes_find_slots_that_other_ingresses_use(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(routing, "PROBE_AFTER_S", 0.01)
    for replica in handle.router.curr_replicas.values():
        replica.taken = 2
        handle.router.on_new_queue_len_info(replica.replica_id, 2)
    waiting = handle.send_request()
    assert await settle_requests(waiting) == [None]
    handle.router.curr_replicas[ReplicaID("b", MUSIC)].taken = 1
    assert await asyncio.wait_for(waiting, 5) == "b"


async def test_an_ingress_gives_its_slots_to_its_own_requests(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
):
    """Turns order the requests of one ingress; another gets a slot when none of these wait."""
    monkeypatch.setattr(routing, "PROBE_AFTER_S", 0.01)
    first = await settle_requests(*(handle.send_request() for _ in range(4)))
    other = Handle(*handle.router.curr_replicas.values())
    await settle_requests()
    earlier, later = other.send_request(turn=1.0), handle.send_request(turn=2.0)
    assert await settle_requests(earlier, later) == [None, None]
    for replica in filter(None, first[:2]):
        handle.end_request(replica)
        went = await settle_requests(later)
        assert went == [first[0]]
    assert await asyncio.wait_for(earlier, 5) == first[1]
    await asyncio.gather(*other.router._routing_tasks)


async def test_a_slot_that_is_not_used_becomes_free(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(routing, "IN_TRANSIT_S", 0.05)
    monkeypatch.setattr(routing, "PROBE_AFTER_S", 0.01)
    for replica in handle.router.curr_replicas:
        handle.router._in_transit[replica] = [time.monotonic()] * 2
    waiting = handle.send_request()
    assert await settle_requests(waiting) == [None]
    assert await asyncio.wait_for(waiting, 5) in ("a", "b")


async def test_replicas_report_their_number_of_slots():
    handle = Handle(Replica("a", routing_stats={"slots": 1}), Replica("b", routing_stats={}))
    await settle_requests()
    tasks = [handle.send_request() for _ in range(4)]
    went = await settle_requests(*tasks)
    assert [went.count(name) for name in ("a", "b", None)] == [1, 2, 1]
    tasks[went.index(None)].cancel()
    for task in list(handle.router._routing_tasks):
        task.cancel()


async def test_waiting_requests_start_by_their_turns():
    """A light key's request was sent last, and its turn is before those of a greedy key."""
    handle = Handle(Replica("a", taken=1))
    await settle_requests(handle.send_request(turn=1.0))
    greedy = [handle.send_request(turn=float(number)) for number in range(100, 104)]
    light = handle.send_request(turn=50.0)
    await settle_requests(*greedy, light)
    handle.end_request("a")
    assert await settle_requests(light, *greedy) == ["a", None, None, None, None]
    handle.end_request("a")
    assert await settle_requests(*greedy) == ["a", None, None, None]
    for task in greedy:
        task.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_the_capacity_is_the_sum_of_what_replicas_report():
    """Not what the file says: a replica that has not reported has no slots yet."""
    full = {"slots": 3, "speed": 4.0}
    Handle(Replica("a", routing_stats=full), Replica("b", routing_stats={"slots": 1, "speed": 2.0}))
    assert get_capacity("music") == Capacity(4, 6.0)
    Handle(Replica("a", routing_stats=full), Replica("b", routing_stats={}))
    assert get_capacity("music") == Capacity(3, 8.0)
    Handle()
    assert get_capacity("music") == Capacity(0, None)


@pytest.mark.parametrize("name", ["FreeSlotRouter", "ReportingRouter"])
async def test_a_router_that_serve_has_pickled_notes_reports_too(name: str):
    """Serve pickles a router's class with the objects of its module, which would be copies."""
    config = RequestRouterConfig(request_router_class=f"deployments.scaling.router:{name}")
    router = cloudpickle.loads(config._serialized_request_router_cls)(
        deployment_id=DeploymentID(name, "audiocraft"),
        handle_source=DeploymentHandleSource.REPLICA,
    )
    if name == "FreeSlotRouter":
        router.initialize_state(slots=2)
    router.update_replicas([Replica("a", routing_stats={"slots": 3, "speed": 4.0})])
    assert get_capacity(name) == Capacity(3, 4.0)
