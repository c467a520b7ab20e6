"""What MusicGen and AudioGen deployments share: text in, codec tokens out."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from deployments.metrics import EngineMetrics
from deployments.settings import NoTunables, TokenModelSettings
from deployments.worker import Health, Worker, prepare_hub

if TYPE_CHECKING:
    from engine.params import Generated, GenerationParams, LanguageModelInfo, Load
    from engine.request import Request

SHUTDOWN_S = 600
"""How long a replica that is to go may finish what it has begun; longer than any one clip."""


class TokenModel:
    """A replica of a language model; its requests are decoded together, step by step."""

    STRIDE_SECONDS: float
    """How far a window moves along a clip that is longer than it."""

    def __init__(self, settings: TokenModelSettings, *, stem_separation: bool = False) -> None:
        prepare_hub(settings.checkpoint, settings.text_encoder)
        from engine import params
        from engine.engine import EngineSettings
        from engine.language_model import LanguageModel

        self._params = params
        self._model = LanguageModel.load(
            settings.checkpoint,
            EngineSettings(precision=settings.dtype, **settings.engine.model_dump()),
            device=settings.torch_device,
            frame_rate=settings.frame_rate,
            stride_seconds=self.STRIDE_SECONDS,
            text_encoder=settings.text_encoder,
            stem_separation=stem_separation,
        )
        self._encoder = Worker()
        self._health = Health()
        self._metrics = EngineMetrics()
        self._requests = self._completed = self._cancelled = 0

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def info(self) -> "LanguageModelInfo":
        """Return what this model can do."""
        return self._model.info

    async def load(self) -> "Load":
        """Return what this replica is doing."""
        return self._load()

    def _load(self) -> "Load":
        engine = self._model.loop.engine
        done, steps = engine.statistics, max(engine.statistics.steps, 1)
        return self._params.Load(
            requests=self._requests,
            waiting=engine.scheduler.waiting,
            running=len(engine.scheduler.running),
            slots=engine.scheduler.slots.number,
            completed=self._completed,
            cancelled=self._cancelled,
            steps=done.steps,
            step_ms=1000 * done.seconds / steps,
            mean_running=done.requests / steps,
            rows_used=done.rows / max(done.rows_run, 1),
            frames=done.frames,
            frames_per_second=done.frames / max(done.seconds, 1e-9),
            first_chunk_seconds=done.first_chunk_seconds / max(done.first_chunks, 1),
        )

    async def generate(
        self, params: "GenerationParams", chunk_frames: int, first_chunk_frames: int
    ) -> AsyncGenerator["Generated", None]:
        """Yield codes while they are generated, in chunks of at least so many frames.

        A caller that cancels frees its slot within one step; one that merely stops reading does
        not, since Ray goes on. Raises InvalidRequest where the text is too long, GenerationFailed
        where the model fails.
        """
        with self._counted():
            request = await self._request(params)
            chunks = self._model.loop.generate(request, chunk_frames, first_chunk_frames)
            async with aclosing(chunks):
                async for chunk in chunks:
                    self._metrics.update(self._load())
                    codes = self._params.Codes.pack(chunk)
                    yield self._params.Generated(codes, *request.seconds_waited_and_run())

    async def _request(self, params: "GenerationParams") -> "Request":
        return await self._encoder.run(self._model.prepare, params)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request by how it ended: whole, left by its caller, or failed."""
        self._requests += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled += 1
            raise
        finally:
            self._requests -= 1
            self._metrics.update(self._load())
        self._completed += 1

    async def check_health(self) -> None:
        """Raise if the model no longer answers."""
        self._model.loop.check_alive()
        self._metrics.update(self._load())
        steps = self._model.loop.engine.statistics.steps
        if self._health.needs_probe(steps, busy=self._requests > 0):
            probe = self._params.GenerationParams(text="probe", frames=1, seed=0)
            async with aclosing(self._model.loop.generate(await self._request(probe))) as chunks:
                assert [chunk async for chunk in chunks]
