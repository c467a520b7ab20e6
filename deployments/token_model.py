"""What MusicGen and AudioGen deployments share: text in, codec tokens out."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deployments.settings import NoTunables, TokenModelSettings
from deployments.worker import Health, Worker, prepare_hub

if TYPE_CHECKING:
    from engine.params import Generated, GenerationParams, LanguageModelInfo, Load

SHUTDOWN_S = 600
"""How long a replica that is to go may finish what it has begun; longer than any one clip."""


class TokenModel:
    """A replica of a language model; requests take turns, first come first served."""

    def __init__(self, settings: TokenModelSettings) -> None:
        prepare_hub(settings.checkpoint, settings.text_encoder)
        from engine.params import Generated, Load
        from engine.reference import ReferenceModel

        self._generated, self._load = Generated, Load
        self._model = ReferenceModel.load(
            settings.checkpoint,
            device=settings.torch_device,
            dtype=settings.dtype,
            text_encoder=settings.text_encoder,
        )
        self._model.probe()
        self._worker = Worker()
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
        return self._load(
            requests=self._requests,
            completed=self._completed,
            cancelled=self._cancelled,
            steps=self._model.steps,
        )

    async def generate(self, params: "GenerationParams") -> "Generated":
        """Generate codes. If the caller is cancelled, the model stops within one step."""
        left = threading.Event()
        self._requests += 1
        try:
            generated = await self._worker.run(
                self._generate, params, time.perf_counter(), left.is_set
            )
        except asyncio.CancelledError:
            left.set()
            self._cancelled += 1
            raise
        finally:
            self._requests -= 1
        self._completed += 1
        return generated

    def _generate(
        self, params: "GenerationParams", arrived: float, left: Callable[[], bool]
    ) -> "Generated":
        begun = time.perf_counter()
        codes = self._model.generate(params, left)
        return self._generated(codes, begun - arrived, time.perf_counter() - begun)

    async def check_health(self) -> None:
        """Raise if the model no longer answers."""
        if self._health.needs_probe(self._model.steps, busy=self._requests > 0):
            await self._worker.run(self._model.probe)
