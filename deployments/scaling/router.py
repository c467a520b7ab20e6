"""Sends each request for a token model to the replica with the most free slots.

Serve's own router sends a request immediately to the shorter queue of two random replicas, where it
stays even if another replica has a free slot. This router holds requests until a slot is free, so
each starts as soon as any replica can start it. Waiting requests start in the order of the turns
that the ledger gave them (`deployments/accounts.py`).
"""

import asyncio
import bisect
import random
import time
from collections import defaultdict, deque
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from deployments.capacity import note_reports
from deployments.ray_private import DefaultRouter

SLOT_METHOD = "generate"
"""The method that takes a slot; calls of other methods go to any replica immediately."""
PROBE_AFTER_S = 0.25
"""The interval of probes while a request waits, since slots of other ingresses also become free."""
IN_TRANSIT_S = 1.0
"""The longest time that a routed request counts for its replica before it is sent."""


TURN_ARGUMENT = 3
"""The position of the turn among the arguments of `SLOT_METHOD`."""


class ReportingRouter(DefaultRouter):  # type: ignore[misc]  # untyped
    """The `request_router_class` of models that work in batches: Serve's own, with reports."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Set the present replicas, and note what they report."""
        super().update_replicas(replicas)
        note_reports(self._deployment_id.name, [one.routing_stats for one in replicas])


def _get_turn(request: PendingRequest) -> float:
    """Return the turn of a request in Unix seconds; without one, the time of its arrival."""
    turn = request.args[TURN_ARGUMENT] if len(request.args) > TURN_ARGUMENT else 0.0
    return float(turn or request.created_at)


class FreeSlotRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # untyped
    """The `request_router_class` of token models; each handle has one instance.

    It counts the calls that its own handle sends. Probes of the replicas add the calls of other
    handles.
    """

    def initialize_state(self, slots: int) -> None:
        """Set the slots of replicas that have not reported their number."""
        self._slots = slots
        self._in_transit: dict[ReplicaID, list[float]] = defaultdict(list)
        self._slot_freed = asyncio.Event()
        self._probing: asyncio.Task[Any] | None = None

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """Send a call that takes no slot to any replica immediately.

        Serve routes the oldest requests first, two at a time per replica, so the call would wait
        behind all requests that wait for a slot.
        """
        if pending_request.metadata.call_method == SLOT_METHOD:
            # As a retry, it is inserted by its turn and not appended.
            return await super()._choose_replica_for_request(pending_request, is_retry=True)
        if is_retry or not self._replicas_list:
            return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        replica = random.choice(self._replicas_list)
        self._in_transit[replica.replica_id].append(time.monotonic())
        return replica

    def _insert_pending_request_sorted(
        self, queue: deque[PendingRequest], pending_request: PendingRequest
    ) -> None:
        """Insert a request by its turn, behind requests of the same turn."""
        bisect.insort(queue, pending_request, key=_get_turn)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas with the most free slots, after a short wait if there are none.

        Nothing is awaited between the choice and its count, so no slot is given twice.
        """
        if pending_request is None or pending_request.metadata.call_method != SLOT_METHOD:
            if pending_request:
                pending_request.routing_context.should_backoff = True
            return [candidate_replicas]
        if not self._find_emptiest():
            self._slot_freed.clear()
            try:
                await asyncio.wait_for(self._slot_freed.wait(), PROBE_AFTER_S)
            except TimeoutError:
                self._probe_full_replicas()
        return [self._find_emptiest()]

    def _find_emptiest(self) -> list[RunningReplica]:
        free = {one.replica_id: self._count_free_slots(one) for one in self._replicas_list}
        most = max(free.values(), default=0)
        return [one for one in self._replicas_list if free[one.replica_id] == most > 0]

    def _count_free_slots(self, replica: RunningReplica) -> int:
        """Return the replica's free slots; 0 if its queue length is not known."""
        taken = self.replica_queue_len_cache.get(replica.replica_id)
        if taken is None:
            return 0
        now, in_transit = time.monotonic(), self._in_transit[replica.replica_id]
        in_transit[:] = [since for since in in_transit if now - since < IN_TRANSIT_S]
        slots = replica.routing_stats.get("slots", self._slots)
        return int(slots - taken - len(in_transit))

    def _probe_full_replicas(self) -> None:
        if self._probing is None or self._probing.done():
            full = [one for one in self._replicas_list if self._count_free_slots(one) <= 0]
            self._probing = self._event_loop.create_task(self._probe_queue_lens(full, 0))
            self._probing.add_done_callback(lambda _: self._slot_freed.set())

    def _fulfill_next_pending_request(self, replica: RunningReplica, *more: Any) -> None:
        super()._fulfill_next_pending_request(replica, *more)
        self._in_transit[replica.replica_id].append(time.monotonic())

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a call that was sent."""
        super().on_send_request(replica_id)
        if in_transit := self._in_transit[replica_id]:
            in_transit.pop(0)

    def decrement_queue_len_cache(self, replica_id: ReplicaID) -> None:
        """Count a call that ended."""
        super().decrement_queue_len_cache(replica_id)
        self._slot_freed.set()

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Set the present replicas, and forget the removed ones."""
        super().update_replicas(replicas)
        for gone in self._in_transit.keys() - self._replicas.keys():
            del self._in_transit[gone]
        note_reports(self._deployment_id.name, [one.routing_stats for one in replicas])
        self._slot_freed.set()
