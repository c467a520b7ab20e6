"""Deploys multi-band diffusion, a slower and better decoder than EnCodec, in dynamic batches."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ray import serve

from deployments.batching import Batches, ItemResult, SizedItem, total_seconds
from deployments.settings import DiffusionSettings
from deployments.tracing import trace_calls
from deployments.worker import Health, keep_logs, prepare_hub

if TYPE_CHECKING:
    from engine.params import BatchLoad, CodecInfo, Diffusing, DiffusionParams, Waveform

PROGRESS_EVERY_S = 0.2


@serve.deployment(max_ongoing_requests=64)
@trace_calls
class MultiBandDiffusion:
    """Serves a multi-band diffusion checkpoint with the codec that it was trained for."""

    def __init__(self, settings: DiffusionSettings, codec: str) -> None:
        prepare_hub(settings.checkpoint, codec)
        keep_logs()
        from engine import diffusion, fence, params

        self._job, self._params = diffusion.Job, params
        with fence.within(settings.torch_device, settings.gpu_share):
            self._diffusion = diffusion.Diffusion.load(
                settings.checkpoint, codec, device=settings.torch_device, filename=settings.file
            )
        self._health = Health()
        self._batches = Batches(self._generate_batch)

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        self._batches.apply_tunables(user_config)

    async def info(self) -> "CodecInfo":
        """Return the format of the input codes and of the output audio."""
        return self._diffusion.info

    async def generate(self, params: "DiffusionParams") -> AsyncGenerator["Diffusing", None]:
        """Yield the progress every `PROGRESS_EVERY_S` seconds, and the audio at the end.

        A cancelled call stops within one evaluation. Raises InvalidRequest if the codes do not
        fit the model.
        """
        job = self._job(params.codes, params.seed, params.equalize, params.samples)
        seconds = params.codes.frames / self._diffusion.info.frame_rate
        made: asyncio.Task[Waveform] = asyncio.ensure_future(
            self._batches.call_method(self._generate_batch, seconds, job)
        )
        total = self._diffusion.evaluations
        try:
            while not made.done():
                await asyncio.wait({made}, timeout=PROGRESS_EVERY_S)
                if not made.done():
                    yield self._params.Diffusing(job.evaluated, total)
            yield self._params.Diffusing(total, total, await made)
        finally:
            job.cancelled = True
            made.cancel()

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _generate_batch(self, batch: list[SizedItem]) -> list[ItemResult]:
        return await self._batches.run_batch(self._diffusion.generate, batch)

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
        """Raise an error if running work makes no progress."""
        self._health.needs_probe(self._diffusion.done, busy=self._batches.busy > 0)
