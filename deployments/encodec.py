"""Deploys EnCodec, which turns codes into audio and audio into codes, in dynamic batches."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from ray import serve

from deployments.batching import Batches, ItemResult, SizedItem, total_seconds
from deployments.settings import EnCodecSettings
from deployments.tracing import trace_calls
from deployments.worker import Health, keep_logs, prepare_hub

if TYPE_CHECKING:
    from engine.params import AudioPiece, BatchLoad, CodecInfo, CodesPiece


@serve.deployment(max_ongoing_requests=256)
@trace_calls
class EnCodec:
    """Serves an EnCodec checkpoint; one batch holds pieces of many clients."""

    def __init__(self, settings: EnCodecSettings) -> None:
        prepare_hub(settings.checkpoint)
        keep_logs()
        from engine import fence
        from engine.codec import Codec

        with fence.within(settings.torch_device, settings.gpu_share):
            self._codec = Codec.load(
                settings.checkpoint, device=settings.torch_device, stereo=settings.stereo
            )
            self._codec.probe()
        self._info = self._codec.info
        self._health = Health()
        self._batches = Batches(self._decode_batch, self._encode_batch)

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        self._batches.apply_tunables(user_config)

    async def info(self) -> "CodecInfo":
        """Return the codec's code and audio formats."""
        return self._info

    async def decode(self, piece: "CodesPiece") -> "AudioPiece":
        """Decode the next codes of a clip. Raises InvalidRequest if they do not fit the codec."""
        seconds = piece.codes.frames / self._info.frame_rate
        made: AudioPiece = await self._batches.call_method(self._decode_batch, seconds, piece)
        return made

    async def encode(self, piece: "AudioPiece") -> "CodesPiece":
        """Encode the next samples of a clip. Raises InvalidRequest if they do not fit the codec."""
        seconds = piece.audio.samples / self._info.sample_rate
        made: CodesPiece = await self._batches.call_method(self._encode_batch, seconds, piece)
        return made

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _decode_batch(self, batch: list[SizedItem]) -> list[ItemResult]:
        return await self._batches.run_batch(self._codec.decode, batch)

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _encode_batch(self, batch: list[SizedItem]) -> list[ItemResult]:
        return await self._batches.run_batch(self._codec.encode, batch)

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
        """Raise an error if the codec no longer responds."""
        if self._health.needs_probe(self._codec.done, busy=self._batches.busy > 0):
            await self._batches.run_probe(self._codec.probe)
