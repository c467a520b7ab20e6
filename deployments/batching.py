"""What deployments under `@serve.batch` share: sizes in seconds of audio, errors an item."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import get_current_span

from deployments.metrics import BatchMetrics
from deployments.scaling.load_report import BatchPace
from deployments.settings import BatchTunables
from deployments.worker import Worker

if TYPE_CHECKING:
    from engine.params import BatchLoad

Sized = tuple[int, Any]
"""Whole seconds of audio, and the item."""


@dataclass(frozen=True)
class Batched:
    """What came of an item, or its error, and of which batch."""

    result: Any
    items: int
    seconds: int
    """Of audio, in the whole batch."""
    began: float
    """When the batch began, of `time.perf_counter`."""


def total_seconds(batch: list[Sized]) -> int:
    """Return how much audio a batch holds. Serve's batching hangs where this raises."""
    return sum(seconds for seconds, _ in batch)


class Batches:
    """Calls batched methods and runs their batches on one thread; counts both."""

    def __init__(self, *methods: Any) -> None:
        from engine import params

        self._params, self._methods = params, methods
        self._worker = Worker()
        self.busy = 0
        """Items that wait or are worked on."""
        self._items = self._batches = 0
        self._metrics = BatchMetrics()
        self.pace = BatchPace()
        self.tune({})

    def load(self) -> "BatchLoad":
        """Return what is waited for, and what was done."""
        return self._params.BatchLoad(self.busy, self._items, self._batches)

    def tune(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        tunables = BatchTunables.model_validate(user_config)
        self._most_seconds = tunables.max_batch_s
        for method in self._methods:
            method.set_max_batch_size(tunables.max_batch_s)
            method.set_batch_wait_timeout_s(tunables.batch_wait_timeout_s)

    async def call(
        self, method: Callable[[Sized], Awaitable[Batched]], seconds: float, item: Any
    ) -> Any:
        """Let an item join a batch; its own error, if that is what came of it, is raised."""
        self.busy += 1
        asked = time.perf_counter()
        # Never more than a batch may hold; and positionally: a keyword argument to a batched
        # method ends its batching task.
        size = min(max(math.ceil(seconds), 1), self._most_seconds)
        try:
            with self.pace.outstanding(size):
                made = await method((size, item))
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

    async def run(
        self, function: Callable[[list[Any]], list[Any]], batch: list[Sized]
    ) -> list[Batched]:
        """Run a batch's items together on the thread."""
        items, seconds, began = len(batch), total_seconds(batch), time.perf_counter()
        self._batches += 1
        self._items += items
        self._metrics.formed(items, seconds)
        results = await self._worker.run(self._work, function, batch, seconds)
        return [Batched(result, items, seconds, began) for result in results]

    def _work(
        self, function: Callable[[list[Any]], list[Any]], batch: list[Sized], seconds: int
    ) -> list[Any]:
        with self.pace.working(seconds):
            return function([item for _, item in batch])

    async def probe(self, function: Callable[[], None]) -> None:
        """Run a check on the thread, behind the batches before it."""
        await self._worker.run(function)
