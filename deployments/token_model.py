"""What MusicGen and AudioGen deployments share: text in, codec tokens out."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from deployments.settings import NoTunables, TokenModelSettings
from deployments.worker import Health, Worker, prepare_hub

if TYPE_CHECKING:
    from engine.params import Generated, GenerationParams, LanguageModelInfo, Load

SHUTDOWN_S = 600
"""How long a replica that is to go may finish what it has begun; longer than any one clip."""


class TokenModel:
    """A replica of a language model; its requests are decoded together, step by step."""

    STRIDE_SECONDS: float
    """How far a window moves along a clip that is longer than it."""

    def __init__(self, settings: TokenModelSettings) -> None:
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
        )
        self._encoder = Worker()
        self._health = Health()
        self._requests = self._completed = self._cancelled = 0

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def info(self) -> "LanguageModelInfo":
        """Return what this model can do."""
        return self._model.info

    async def load(self) -> "Load":
        """Return what this replica is doing."""
        engine = self._model.loop.engine
        done, steps = engine.statistics, max(engine.statistics.steps, 1)
        return self._params.Load(
            requests=self._requests,
            running=len(engine.scheduler.running),
            slots=engine.scheduler.slots.number,
            completed=self._completed,
            cancelled=self._cancelled,
            steps=done.steps,
            step_ms=1000 * done.seconds / steps,
            mean_running=done.requests / steps,
            frames=done.frames,
        )

    async def generate(self, params: "GenerationParams") -> "Generated":
        """Generate codes. If the caller is cancelled, its slot is free within one step.

        Raises InvalidRequest where the text is too long, GenerationFailed where the model fails.
        """
        self._requests += 1
        try:
            generated = await self._generate(params)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        finally:
            self._requests -= 1
        self._completed += 1
        return generated

    async def _generate(self, params: "GenerationParams") -> "Generated":
        conditions = await self._encoder.run(self._model.conditions, params.text)
        request = self._model.request(params, conditions)
        async with aclosing(self._model.loop.generate(request)) as chunks:
            parts = [chunk async for chunk in chunks]
        return self._params.Generated(
            self._params.Codes.join(parts), *request.seconds_waited_and_run()
        )

    async def check_health(self) -> None:
        """Raise if the model no longer answers."""
        steps = self._model.loop.engine.statistics.steps
        if self._health.needs_probe(steps, busy=self._requests > 0):
            await self._generate(self._params.GenerationParams(text="probe", frames=1, seed=0))
