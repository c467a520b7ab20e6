"""Deploys the decoder of uploads in its own processes, so that a crash fails only uploads."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from ray import serve

from deployments.scaling.load_report import ProcessLoad
from deployments.settings import NoTunables
from deployments.tracing import trace_calls
from deployments.worker import Worker

if TYPE_CHECKING:
    from engine.params import MediaLimits, UploadInfo, Waveform


@serve.deployment(max_ongoing_requests=32)
@trace_calls
class Media:
    """Decodes files to samples at the sample rate and number of channels of a model."""

    def __init__(self) -> None:
        from engine import media

        self._media = media
        self._worker = Worker()
        self._measured_load = ProcessLoad()

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load report for `deployments.scaling.policy`."""
        return asdict(self._measured_load.build_report())

    async def probe(self, data: bytes, limits: "MediaLimits") -> "UploadInfo":
        """Return a file's length, sample rate and channels. Raises InvalidAudio."""
        return await self._worker.run(self._media.probe, data, limits)

    async def decode(
        self, data: bytes, limits: "MediaLimits", sample_rate: int, channels: int
    ) -> "Waveform":
        """Decode a file. Raises InvalidAudio if it is not audio or exceeds the limits."""
        return await self._worker.run(self._decode_and_convert, data, limits, sample_rate, channels)

    def _decode_and_convert(
        self, data: bytes, limits: "MediaLimits", sample_rate: int, channels: int
    ) -> "Waveform":
        return self._media.convert(self._media.decode(data, limits), sample_rate, channels)
