"""EnCodec: codec tokens to audio, in dynamic batches."""

from typing import TYPE_CHECKING

from ray import serve

from deployments.settings import EnCodecSettings, EnCodecTunables
from deployments.worker import Health, Worker, prepare_hub

if TYPE_CHECKING:
    from engine.errors import InvalidRequest
    from engine.params import CodecInfo, Codes, Waveform


@serve.deployment(max_ongoing_requests=256)
class EnCodec:
    """Serves an EnCodec checkpoint."""

    def __init__(self, settings: EnCodecSettings) -> None:
        prepare_hub(settings.checkpoint)
        from engine.codec import Codec

        self._codec = Codec.load(settings.checkpoint, device=settings.torch_device)
        self._codec.probe()
        self._worker = Worker()
        self._health = Health()
        self._busy = 0
        self.reconfigure({})

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        tunables = EnCodecTunables.model_validate(user_config)
        self._decode_batch.set_max_batch_size(tunables.max_batch_size)
        self._decode_batch.set_batch_wait_timeout_s(tunables.batch_wait_timeout_s)

    async def info(self) -> "CodecInfo":
        """Return what this codec takes and gives."""
        return self._codec.info

    async def decode(self, codes: "Codes") -> "Waveform":
        """Decode one request's codes. Raises InvalidRequest where the codes do not fit."""
        self._busy += 1
        try:
            # Positionally: a keyword argument to a batched method ends its batching task.
            result: Waveform | InvalidRequest = await self._decode_batch(codes)
        finally:
            self._busy -= 1
        if isinstance(result, Exception):
            raise result
        return result

    @serve.batch  # type: ignore[untyped-decorator]
    async def _decode_batch(self, batch: list["Codes"]) -> list["Waveform | InvalidRequest"]:
        return await self._worker.run(self._codec.decode, batch)

    async def check_health(self) -> None:
        """Raise if the codec no longer answers."""
        if self._health.needs_probe(self._codec.decoded, busy=self._busy > 0):
            await self._worker.run(self._codec.probe)
