"""Runs a live session: passages that continue each other and follow the newest prompt."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.ledger_state import Share
from engine.params import Codes, GenerationParams, Waveform
from graph.errors import ApiError
from graph.execution import Executor
from graph.live.credit import Credit
from graph.metrics import Metrics
from graph.pipeline import Pipeline
from graph.registry import ModelWithCodec
from graph.settings import Limits
from graph.tasks.generation import PassageTask
from graph.tasks.task import AudioPart, ClipRequest, Event


@dataclass(frozen=True)
class PassageStart:
    """The start of a passage that follows a prompt, at `start` seconds of the session's audio."""

    number: int
    start: float
    duration: float
    prompt: str


Send = Callable[[PassageStart | Waveform], Awaitable[None]]
Warn = Callable[[Exception], Awaitable[None]]


class Session:
    """A live session that plays until it is stopped; cancelling it stops the models in one step."""

    def __init__(
        self,
        executor: Executor,
        pipeline: Pipeline,
        limits: Callable[[], Limits],
        find_share: Callable[[], Share],
        pair: ModelWithCodec,
        first: GenerationParams,
    ) -> None:
        """Create a session; `find_share` raises ApiError 401 where the key was revoked."""
        self._executor, self._pipeline, self._limits = executor, pipeline, limits
        self._find_share, self._pair = find_share, pair
        self._params, self.text = first, first.text
        self.credit = Credit(limits().live_ahead_s, limits().live_idle_s)
        self._stopped = asyncio.Event()
        self._codes: NDArray[np.int16] = np.zeros((pair.language_model.codebooks, 0), np.int16)
        self._frames = 0
        self._state = b""

    def stop(self) -> None:
        """End the passage that plays, and begin no other."""
        self._stopped.set()

    async def play(self, send: Send, warn: Warn) -> None:
        """Send passages until the session is stopped; call `warn` where a passage has to wait.

        Raises ApiError or EngineError where the session cannot go on.
        """
        number = 0
        while await self._wait_for(self.credit.wait_for_room()):
            await self._play_passage(number, send, warn)
            number += 1
        if self._state:
            codebooks, model = len(self._codes), self._pair.settings
            await self._send_audio(
                await self._pipeline.decode_rest(model, codebooks, self._state), send
            )

    async def _play_passage(self, number: int, send: Send, warn: Warn) -> None:
        params, begun = self._build_params(number), False
        async with aclosing(self._run_passage(params, warn, first=not number)) as events:
            async for event in events:
                if not isinstance(event, AudioPart):
                    continue
                if not begun:
                    await send(self._describe_passage(number, params))
                begun = True
                self._keep_part(event)
                await self._send_audio(event.audio, send)
                if self._stopped.is_set():
                    return

    async def _run_passage(
        self, params: GenerationParams, warn: Warn, *, first: bool
    ) -> AsyncGenerator[Event, None]:
        """Run a passage when it is admitted, and yield its events until the session is stopped.

        The first passage is refused at once; later passages wait as long as a request may.
        """
        deadline = 0.0 if first else time.monotonic() + self._limits().max_wait_s
        warned = False
        while not self._stopped.is_set():
            task = PassageTask(
                share=self._find_share(), began=time.perf_counter(), pipeline=self._pipeline,
                pair=self._pair, request=ClipRequest(params), state=self._state,
            )  # fmt: skip
            begun = False
            try:
                async with aclosing(self._executor.stream_events(task)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except ApiError as refused:
                wait_s = float((refused.headers or {}).get("retry-after", math.inf))
                if begun or time.monotonic() + wait_s > deadline:
                    raise
                if not warned:
                    await warn(refused)
                warned = True
            await self._wait_for(asyncio.sleep(wait_s))

    def _build_params(self, number: int) -> GenerationParams:
        """Build the next passage's parameters; its prompt is the last codes that fit the model."""
        length, info = self._params.frames, self._pair.language_model
        room = int(info.max_seconds * info.frame_rate) - length
        self._codes = self._codes[:, -room:]
        before = Codes.pack(self._codes) if self._codes.size else None
        frames = self._codes.shape[1] + length
        # Draws are keyed by the place in the clip, so each passage has its own variation.
        return replace(self._params, text=self.text, variation=number, prompt=before, frames=frames)

    def _keep_part(self, part: AudioPart) -> None:
        self._codes = np.concatenate([self._codes, part.codes.array()], axis=1)
        self._frames += part.codes.frames
        self._state = part.state

    def _describe_passage(self, number: int, params: GenerationParams) -> PassageStart:
        rate = self._pair.codec.frame_rate
        start, duration = self._frames / rate, self._params.frames / rate
        return PassageStart(number, start, duration, params.text)

    async def _send_audio(self, audio: Waveform, send: Send) -> None:
        if audio.samples:
            self.credit.add_sent(audio.seconds)
            await send(audio)

    async def _wait_for(self, waiting: Coroutine[Any, Any, None]) -> bool:
        """Wait until a coroutine or the session ends; return whether the session goes on."""
        tasks = [asyncio.ensure_future(one) for one in (waiting, self._stopped.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return not self._stopped.is_set()


class Sessions:
    """The open live sessions of one ingress replica."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.open = Counter[str]()
        """The number of sessions by the name of their API key."""

    @contextmanager
    def hold_place(self, key: str, limits: Limits) -> Iterator[None]:
        """Count a session while it is open. Raises ApiError 429 where too many are open."""
        for what, have, most in (
            ("this key has", self.open[key], limits.max_live_per_key),
            ("there are", self.open.total(), limits.max_live),
        ):
            if have >= most:
                message = f"{what} {have} live sessions, allowed: {most}; wait until one ends"
                raise ApiError(429, "too_many_sessions", message)
        self._count_session(key, 1)
        try:
            yield
        finally:
            self._count_session(key, -1)

    def _count_session(self, key: str, more: int) -> None:
        self.open[key] += more
        if not self.open[key]:
            del self.open[key]
        self._metrics.set_live_sessions(self.open.total())
