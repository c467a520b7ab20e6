"""Serves AudioCraft's own generation behind `@serve.batch`, as a baseline."""

import asyncio

from ray import serve

from engine.params import Codes, GenerationParams


@serve.deployment(max_ongoing_requests=1000)
class StaticBatches:
    """A deployment with static batches: each batch runs to the end of its longest clip."""

    def __init__(self, checkpoint: str, batch_size: int) -> None:
        import torch

        from benchmarks.reference import ReferenceModel

        self._torch = torch
        self._model = ReferenceModel.load(checkpoint, device="cpu", dtype="float32")
        self._generate_batch.set_max_batch_size(batch_size)

    async def generate(self, params: GenerationParams) -> Codes:
        """Generate the codes of a clip, [codebooks, frames]."""
        codes: Codes = await self._generate_batch(params)
        return codes

    @serve.batch(batch_wait_timeout_s=0.1)  # type: ignore[untyped-decorator]
    async def _generate_batch(self, batch: list[GenerationParams]) -> list[Codes]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._generate_together, batch)

    def _generate_together(self, batch: list[GenerationParams]) -> list[Codes]:
        from engine.conditioning import build_attributes

        with self._torch.inference_mode():
            codes = self._model.lm.generate(
                conditions=[build_attributes(self._model.lm, one.text) for one in batch],
                max_gen_len=max(one.frames for one in batch),
                top_k=batch[0].top_k,
                cfg_coef=batch[0].guidance_scale,
            ).numpy()
        clips = zip(codes, batch, strict=True)
        return [Codes.pack(clip[:, : one.frames]) for clip, one in clips]
