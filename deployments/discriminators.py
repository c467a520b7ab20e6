"""Deploys the discriminators, which score how real windows of audio sound, in dynamic batches."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from ray import serve

from deployments.batching import Batches, ItemResult, SizedItem, total_seconds
from deployments.settings import DiscriminatorsSettings
from deployments.tracing import trace_calls
from deployments.worker import Health, keep_logs, prepare_hub

if TYPE_CHECKING:
    from engine.params import BatchLoad, DiscriminatorsInfo, Waveform, WindowScores


@serve.deployment(max_ongoing_requests=256)
@trace_calls
class Discriminators:
    """Serves the three discriminators of a checkpoint; it fails to start without weights."""

    def __init__(self, settings: DiscriminatorsSettings) -> None:
        prepare_hub(settings.checkpoint)
        keep_logs()
        from engine import fence
        from engine.discriminators import Discriminators as Models

        with fence.within(settings.torch_device, settings.gpu_share):
            self._models = Models.load(settings.checkpoint, device=settings.torch_device)
            self._models.probe()
        self._health = Health()
        self._batches = Batches(self._analyze_batch)

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        self._batches.apply_tunables(user_config)

    async def info(self) -> "DiscriminatorsInfo":
        """Return the discriminators' input format and the calibration of their logits."""
        return self._models.info

    async def analyze(self, window: "Waveform") -> "WindowScores":
        """Score one window. Raises InvalidRequest if its format does not fit."""
        seconds = window.samples / window.sample_rate
        made: WindowScores = await self._batches.call_method(self._analyze_batch, seconds, window)
        return made

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _analyze_batch(self, batch: list[SizedItem]) -> list[ItemResult]:
        return await self._batches.run_batch(self._models.analyze, batch)

    async def load(self) -> "BatchLoad":
        """Return the current load of this replica."""
        return self._batches.read_load()

    async def record_routing_stats(self) -> dict[str, float]:
        """Return the speed for `deployments.scaling.router`; nothing before it was measured."""
        return self._batches.measured_load.build_capacity()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load report for `deployments.scaling.policy`."""
        return asdict(self._batches.measured_load.build_report())

    async def check_health(self) -> None:
        """Raise an error if the models no longer respond."""
        if self._health.needs_probe(self._models.done, busy=self._batches.busy > 0):
            await self._batches.run_probe(self._models.probe)
