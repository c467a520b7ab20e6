"""Which replica of a language model a request goes to: the emptiest with a free slot, once there is
one.

Serve's own router gives a request at once to the shorter queue of two replicas that it picked at
random; there it stays, though a third has room, or a new one comes up. Held back until a slot is
free, it starts as soon as any replica can start it, in the order of arrival.
"""

import asyncio
import random
import time
from collections import defaultdict
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

SLOT_METHOD = "generate"
"""The method that takes a slot; all others go to any replica, at once."""
PROBE_AFTER_S = 0.25
"""How often replicas are asked, since other ingresses' requests end as well."""
IN_TRANSIT_S = 1.0
"""A request that was given a replica counts there for so long, until it was sent."""


class FreeSlotRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]  # untyped
    """Serve's `request_router_class`; each handle has one.

    A replica's calls are counted by the handle, as they are sent and end; what other handles sent
    is known when the replica is asked.
    """

    def initialize_state(self, slots: int) -> None:
        """Take how many slots a replica has that has not said it yet."""
        self._slots = slots
        self._in_transit: dict[ReplicaID, list[float]] = defaultdict(list)
        self._slot_freed = asyncio.Event()
        self._probing: asyncio.Task[Any] | None = None

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """Give another call any replica, at once.

        Serve routes the oldest requests first, two at a time for each replica: it would wait behind
        all that wait for a slot.
        """
        if (
            pending_request.metadata.call_method == SLOT_METHOD
            or is_retry
            or not self._replicas_list
        ):
            return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        replica = random.choice(self._replicas_list)
        self._in_transit[replica.replica_id].append(time.monotonic())
        return replica

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replicas that may be given this request; wait a while where there are none.

        From the choice to the count of what was given nothing waits, so none is given twice.
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
        room = {one.replica_id: self._count_free_slots(one) for one in self._replicas_list}
        most = max(room.values(), default=0)
        return [one for one in self._replicas_list if room[one.replica_id] == most > 0]

    def _count_free_slots(self, replica: RunningReplica) -> int:
        """Return its free slots; none where it has not been heard of for long."""
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
        """Count a call that is sent."""
        super().on_send_request(replica_id)
        if in_transit := self._in_transit[replica_id]:
            in_transit.pop(0)

    def decrement_queue_len_cache(self, replica_id: ReplicaID) -> None:
        """Count a call that has ended."""
        super().decrement_queue_len_cache(replica_id)
        self._slot_freed.set()

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Take the replicas that there are now."""
        super().update_replicas(replicas)
        for gone in self._in_transit.keys() - self._replicas.keys():
            del self._in_transit[gone]
        self._slot_freed.set()
