"""One live session: passage after passage, each under the newest prompt, without a seam."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from api.audio.encoder import PcmSink
from api.keys import share_named
from api.schemas.live import Passage
from api.service import Service
from engine.params import Codes, GenerationParams, Waveform
from graph.errors import ApiError
from graph.live.credit import Credit
from graph.order import charge_of
from graph.pipeline import Part
from graph.registry import Voice

Send = Callable[[BaseModel | bytes], Awaitable[None]]
Tell = Callable[[Exception], Awaitable[None]]


class Session:
    """Plays until it is stopped; who cancels it stops the models within one step."""

    def __init__(self, service: Service, key: str, voice: Voice, first: GenerationParams) -> None:
        limits = service.limits
        self._service, self._key, self._voice = service, key, voice
        self._params, self.text = first, first.text
        self.credit = Credit(limits.live_ahead_s, limits.live_idle_s)
        self._stopped = asyncio.Event()
        self._codes: NDArray[np.int16] = np.zeros((voice.language_model.codebooks, 0), np.int16)
        self._frames = 0
        self._state = b""

    def stop(self) -> None:
        """Make no more."""
        self._stopped.set()

    async def play(self, send: Send, tell: Tell) -> None:
        """Send passages, and what they are, until stopped; tell what holds them up.

        Raises ApiError or EngineError where the session cannot go on.
        """
        number = 0
        while await self._waited(self.credit.room()):
            async with self._let_in(tell, first=not number) as going_on:
                if going_on:
                    await self._passage(number, send)
            number += 1
        if self._state:
            codebooks, model = len(self._codes), self._voice.model
            await self._sound(
                await self._service.pipeline.rest(model, codebooks, self._state), send
            )

    async def _passage(self, number: int, send: Send) -> None:
        service, model = self._service, self._voice.model
        counted = service.metrics.clip(model.name, time.perf_counter())
        params, begun = self._next(number), False
        async with aclosing(service.pipeline.passage(model, params, self._state)) as parts:
            async for part in parts:
                if not begun:
                    await send(self._told(number, params))
                begun = True
                self._take(part)
                if part.audio.samples:
                    counted.came(part.audio.seconds)
                await self._sound(part.audio, send)
                if self._stopped.is_set():
                    return
        counted.ended()

    def _next(self, number: int) -> GenerationParams:
        """Return what makes the next passage: after as many codes as its window has room for."""
        length, info = self._params.frames, self._voice.language_model
        room = int(info.max_seconds * info.frame_rate) - length
        self._codes = self._codes[:, -room:]
        before = Codes.pack(self._codes) if self._codes.size else None
        frames = self._codes.shape[1] + length
        # Draws are keyed by the place in the window, so passages must be told apart.
        return replace(self._params, text=self.text, variation=number, prompt=before, frames=frames)

    def _take(self, part: Part) -> None:
        self._codes = np.concatenate([self._codes, part.codes.array()], axis=1)
        self._frames += part.codes.frames
        self._state = part.state

    def _told(self, number: int, params: GenerationParams) -> Passage:
        rate = self._voice.codec.frame_rate
        start, duration = self._frames / rate, self._params.frames / rate
        return Passage(number=number, start=start, duration=duration, prompt=params.text)

    async def _sound(self, audio: Waveform, send: Send) -> None:
        if audio.samples:
            data = await asyncio.to_thread(PcmSink("s16", None).write, audio.array())
            self.credit.sent(audio.seconds)
            await send(data)

    @asynccontextmanager
    async def _let_in(self, tell: Tell, *, first: bool) -> AsyncIterator[bool]:
        """Hold a passage's charge, and say whether the session goes on.

        The first is refused at once; later ones wait for as long as any request may, and tell why.
        """
        deadline = 0.0 if first else time.monotonic() + self._service.limits.max_wait_s
        told = False
        async with AsyncExitStack() as charged:
            while not self._stopped.is_set():
                try:
                    await charged.enter_async_context(self._charged())
                    break
                except ApiError as refused:
                    wait_s = float((refused.headers or {}).get("retry-after", math.inf))
                    if time.monotonic() + wait_s > deadline:
                        raise
                    if not told:
                        await tell(refused)
                    told = True
                await self._waited(asyncio.sleep(wait_s))
            yield not self._stopped.is_set()

    def _charged(self) -> AbstractAsyncContextManager[None]:
        """Hold the charge of one passage. Raises ApiError 401 where its key is known no longer."""
        share = share_named(self._key, self._service.limits.keys)
        charge = charge_of(share, self._voice, [self._params])
        return self._service.admission.charged(share, charge, self._voice.model.least_slots)

    async def _waited(self, waiting: Coroutine[Any, Any, None]) -> bool:
        """Wait, unless the session is stopped; say whether it goes on."""
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
