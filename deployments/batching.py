"""Runs the batches of `@serve.batch` deployments: sized in seconds of audio, errors per item."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import get_current_span

from deployments.metrics import BatchMetrics
from deployments.scaling.load_report import BatchedModelLoad
from deployments.settings import BatchTunables
from deployments.worker import Worker

if TYPE_CHECKING:
    from engine.params import BatchLoad

SizedItem = tuple[int, float, Any]
"""An item after its size for batches in whole seconds of audio, and its length in seconds."""


@dataclass(frozen=True)
class ItemResult:
    """The result or the error of one item, with facts about its batch."""

    result: Any
    items: int
    seconds: int
    """Seconds of audio in the whole batch."""
    began: float
    """The start of the batch as a time of `time.perf_counter`, in seconds."""


def total_seconds(batch: list[SizedItem]) -> int:
    """Return the size of a batch. Serve's batching hangs if this raises."""
    return sum(size for size, _, _ in batch)


class Batches:
    """Calls batched methods and runs their batches on one thread, with metrics and load reports."""

    def __init__(self, *methods: Any) -> None:
        from engine import device, params

        self._params, self._methods = params, methods
        self._worker = Worker(check_device=device.check_device)
        self.busy = 0
        """Items that wait or run."""
        self._items = self._batches = 0
        self._metrics = BatchMetrics()
        self.measured_load = BatchedModelLoad()
        self.apply_tunables({})

    def read_load(self) -> "BatchLoad":
        """Return the waiting and finished items and the batches."""
        return self._params.BatchLoad(self.busy, self._items, self._batches)

    def apply_tunables(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        tunables = BatchTunables.model_validate(user_config)
        self._most_seconds = tunables.max_batch_s
        for method in self._methods:
            method.set_max_batch_size(tunables.max_batch_s)
            method.set_batch_wait_timeout_s(tunables.batch_wait_timeout_s)

    async def call_method(
        self, method: Callable[[SizedItem], Awaitable[ItemResult]], seconds: float, item: Any
    ) -> Any:
        """Run an item in a batch with others; return its result or raise its own error."""
        self.busy += 1
        asked = time.perf_counter()
        # The size is at most a whole batch. The argument is positional, since a keyword argument
        # to a batched method ends its batching task.
        size = min(max(math.ceil(seconds), 1), self._most_seconds)
        try:
            with self.measured_load.count_request(seconds):
                made = await method((size, seconds, item))
        finally:
            self.busy -= 1
        get_current_span().set_attributes(
            {
                "audiocraft.batch.items": made.items,
                "audiocraft.batch.audio_seconds": made.seconds,
                "audiocraft.batch.wait_seconds": made.began - asked,
            }
        )
        if isinstance(made.result, Exception):
            raise made.result
        return made.result

    async def run_batch(
        self, function: Callable[[list[Any]], list[Any]], batch: list[SizedItem]
    ) -> list[ItemResult]:
        """Run the items of a batch together on the thread."""
        items, seconds, began = len(batch), total_seconds(batch), time.perf_counter()
        self._batches += 1
        self._items += items
        self._metrics.count_batch(items, seconds)
        results = await self._worker.run(self._run_items, function, batch)
        return [ItemResult(result, items, seconds, began) for result in results]

    def _run_items(
        self, function: Callable[[list[Any]], list[Any]], batch: list[SizedItem]
    ) -> list[Any]:
        # Sizes are rounded up: a stream's first piece of 0.3 s would count as a whole second.
        with self.measured_load.time_batch(sum(seconds for _, seconds, _ in batch)):
            return function([item for _, _, item in batch])

    async def run_probe(self, function: Callable[[], None]) -> None:
        """Run a check on the thread after the queued batches."""
        await self._worker.run(function)
