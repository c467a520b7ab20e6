"""EnCodec: codes to audio and audio to codes, in dynamic batches."""

import math
from typing import TYPE_CHECKING, Any

from ray import serve

from deployments.settings import CodecTunables, EnCodecSettings
from deployments.worker import Health, Worker, prepare_hub

if TYPE_CHECKING:
    from engine.errors import InvalidRequest
    from engine.params import AudioPiece, CodecInfo, CodesPiece


def total_seconds(batch: list[tuple[int, object]]) -> int:
    """Return how much audio a batch holds. Serve's batching hangs where this raises."""
    return sum(seconds for seconds, _ in batch)


@serve.deployment(max_ongoing_requests=256)
class EnCodec:
    """Serves an EnCodec checkpoint; the pieces of many clients form one batch."""

    def __init__(self, settings: EnCodecSettings) -> None:
        prepare_hub(settings.checkpoint)
        from engine.codec import Codec

        self._codec = Codec.load(settings.checkpoint, device=settings.torch_device)
        self._codec.probe()
        self._info = self._codec.info
        self._worker = Worker()
        self._health = Health()
        self._busy = 0
        self.reconfigure({})

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        tunables = CodecTunables.model_validate(user_config)
        self._most_seconds = tunables.max_batch_s
        for batched in (self._decode_batch, self._encode_batch):
            batched.set_max_batch_size(tunables.max_batch_s)
            batched.set_batch_wait_timeout_s(tunables.batch_wait_timeout_s)

    async def info(self) -> "CodecInfo":
        """Return what this codec takes and gives."""
        return self._info

    async def decode(self, piece: "CodesPiece") -> "AudioPiece":
        """Decode a clip's next codes. Raises InvalidRequest where they do not fit."""
        seconds = piece.codes.frames / self._info.frame_rate
        made: AudioPiece = await self._counted(self._decode_batch, seconds, piece)
        return made

    async def encode(self, piece: "AudioPiece") -> "CodesPiece":
        """Encode a clip's next samples. Raises InvalidRequest where they do not fit."""
        seconds = piece.audio.samples / self._info.sample_rate
        made: CodesPiece = await self._counted(self._encode_batch, seconds, piece)
        return made

    async def _counted(self, batched: Any, seconds: float, piece: object) -> Any:
        self._busy += 1
        try:
            # Never more than a batch may hold; and positionally: a keyword argument to a batched
            # method ends its batching task.
            size = min(max(math.ceil(seconds), 1), self._most_seconds)
            result = await batched((size, piece))
        finally:
            self._busy -= 1
        if isinstance(result, Exception):
            raise result
        return result

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _decode_batch(
        self, batch: list[tuple[int, "CodesPiece"]]
    ) -> list["AudioPiece | InvalidRequest"]:
        return await self._worker.run(self._codec.decode, [piece for _, piece in batch])

    @serve.batch(batch_size_fn=total_seconds)  # type: ignore[untyped-decorator]
    async def _encode_batch(
        self, batch: list[tuple[int, "AudioPiece"]]
    ) -> list["CodesPiece | InvalidRequest"]:
        return await self._worker.run(self._codec.encode, [piece for _, piece in batch])

    async def check_health(self) -> None:
        """Raise if the codec no longer answers."""
        if self._health.needs_probe(self._codec.done, busy=self._busy > 0):
            await self._worker.run(self._codec.probe)
