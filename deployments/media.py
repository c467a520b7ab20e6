"""Deploys the decoder of uploads; each file has a process of its own, and a limit of time."""

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments.scaling.load_report import ProcessLoad
from deployments.settings import NoTunables
from deployments.tracing import trace_calls
from deployments.worker import Worker

if TYPE_CHECKING:
    from engine.params import MediaLimits, UploadInfo, Waveform

AT_ONCE = 4
"""Files that a replica reads at once, so that one that hangs does not hold up the others."""
LEAST_S, SPEED = 10.0, 10.0
"""A file may take `LEAST_S` seconds, and one second more for each `SPEED` seconds of audio that
are allowed. Ten minutes at 192 kHz in stereo took 8 s of a core."""


@serve.deployment(max_ongoing_requests=32)
@trace_calls
class Media:
    """Decodes files to samples at the sample rate and number of channels of a model."""

    def __init__(self) -> None:
        from engine.media_processes import MediaProcesses

        self._processes = MediaProcesses()
        self._worker = Worker(AT_ONCE)
        self._measured_load = ProcessLoad(cpu=lambda: time.process_time() + self._processes.cpu_s)

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def check_health(self) -> None:
        """Check that a process can be started for a file. Raises EngineError."""
        await asyncio.to_thread(self._processes.check_server)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load report for `deployments.scaling.policy`."""
        return asdict(self._measured_load.build_report())

    async def probe(self, data: bytes, limits: "MediaLimits") -> "UploadInfo":
        """Return a file's length, sample rate and channels. Raises InvalidAudio."""
        info: UploadInfo = await self._run_function("engine.media.probe", data, limits)
        return info

    async def decode(
        self, data: bytes, limits: "MediaLimits", sample_rate: int, channels: int
    ) -> "Waveform":
        """Decode a file. Raises InvalidAudio if it is not audio or exceeds the limits."""
        to = sample_rate, channels
        audio: Waveform = await self._run_function("engine.media.decode", data, limits, *to)
        return audio

    async def _run_function(
        self, name: str, data: bytes, limits: "MediaLimits", *arguments: int
    ) -> Any:
        limit_s = LEAST_S + limits.max_seconds / SPEED
        run = self._processes.run_function
        return await self._worker.run(run, name, limit_s, data, limits, *arguments)
