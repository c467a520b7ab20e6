"""Tests what a batched model reports of its batches."""

from typing import Any

import pytest

from deployments.batching import Batches, ItemResult, SizedItem
from deployments.scaling.load_report import BatchedModelLoad


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Method:
    """A batched method that runs each item at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def set_max_batch_size(self, size: int) -> None:
        self.size = size

    def set_batch_wait_timeout_s(self, seconds: float) -> None:
        self.wait_s = seconds

    def run_items(self, items: list[Any]) -> list[Any]:
        self._clock.now += 0.1
        return items

    async def __call__(self, item: SizedItem) -> ItemResult:
        (result,) = await self.batches.run_batch(self.run_items, [item])
        return result

    batches: Batches


@pytest.mark.parametrize("seconds", [0.3, 7.5, 100.0])
async def test_the_speed_is_that_of_the_audio_and_not_of_rounded_sizes(seconds: float):
    clock = Clock()
    method = Method(clock)
    method.batches = batches = Batches(method)
    batches.measured_load = BatchedModelLoad(clock)
    assert await batches.call_method(method, seconds, "codes") == "codes"
    report = batches.measured_load.build_report()
    assert report.speed == pytest.approx(seconds / 0.1)
    assert report.request == pytest.approx(seconds)
