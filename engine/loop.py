"""Runs an engine on a thread of its own; asyncio submits requests to it and reads their codes."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditions
from engine.engine import Engine
from engine.errors import GenerationFailed
from engine.request import Progress, Request

Codes = NDArray[np.int16]


class Stream:
    """One request's way from the engine's thread to its reader.

    A slow reader slows nobody: codes wait here, and a whole clip of them is some kilobytes.
    """

    def __init__(self, chunk_frames: int, first_chunk_frames: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunk_frames, self._least = chunk_frames, first_chunk_frames
        self._pending: list[Codes] = []
        self.begun = False
        """Whether codes were passed on."""
        self._arrived: asyncio.Queue[tuple[Codes, Progress]] = asyncio.Queue()

    def add(self, progress: Progress) -> Codes | None:
        """Take a step's result, on the engine's thread; return a chunk when one is full."""
        self._pending.append(progress.codes)
        if not progress.ended and sum(c.shape[1] for c in self._pending) < self._least:
            return None
        chunk = np.concatenate(self._pending, axis=1)
        self._pending, self._least = [], self._chunk_frames
        return chunk

    def send(self, chunk: Codes, progress: Progress) -> None:
        """Pass a chunk on to the reader, with the progress that completed it."""
        with suppress(RuntimeError):  # the reader's event loop is closed: nobody reads
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (chunk, progress))

    async def get(self) -> tuple[Codes, Progress]:
        """Wait for the next chunk, and the progress that completed it."""
        return await self._arrived.get()


class EngineLoop:
    """Owns the engine and its thread. All methods may be called from asyncio."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[Request, Stream] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def generate(
        self, request: Request, chunk_frames: int = 50, first_chunk_frames: int | None = None
    ) -> AsyncGenerator[Codes, None]:
        """Yield the request's codes, int16 [codebooks, frames], in chunks of at least so many.

        Leaving early frees the request's slot within one step. Raises the request's EngineError.
        """
        stream = Stream(chunk_frames, first_chunk_frames or chunk_frames)
        self._inbox.put(lambda: self._add(request, stream))
        ended = False
        try:
            while not ended:
                codes, progress = await stream.get()
                ended = progress.ended
                if progress.error:
                    raise progress.error
                if codes.size:
                    yield codes
        finally:
            if not ended:
                self._inbox.put(lambda: self._cancel(request))

    def replace_conditions(self, request: Request, conditions: Conditions) -> None:
        """Let a request go on under another text from its next frame. Raises InvalidRequest."""
        request.check_replaceable(conditions)
        self.engine.check_text(conditions)
        self._inbox.put(lambda: self._replace(request, conditions))

    def close(self) -> None:
        """End the thread after the step that it is in."""
        self._inbox.put(None)
        self._thread.join()

    def check_alive(self) -> None:
        """Raise RuntimeError where the thread has ended, by a programming error."""
        if not self._thread.is_alive():
            raise RuntimeError("the engine's thread has ended")

    def _add(self, request: Request, stream: Stream) -> None:
        self._streams[request] = stream
        self.engine.scheduler.add(request)

    def _cancel(self, request: Request) -> None:
        if self._streams.pop(request, None):
            self.engine.cancel(request)

    def _replace(self, request: Request, conditions: Conditions) -> None:
        if request in self._streams:
            try:
                self.engine.replace_conditions(request, conditions)
            except Exception as error:  # noqa: BLE001 - whatever failed, this request ends with it
                reason = f"its text could not be replaced: {type(error).__name__}: {error}"
                self._hand_out([self.engine.fail(request, GenerationFailed(reason))])

    def _run(self) -> None:
        while self._take_orders():
            self._hand_out(self._step())

    def _hand_out(self, made: list[Progress]) -> None:
        for progress in made:
            stream = self._streams[progress.request]
            if progress.ended:
                del self._streams[progress.request]
            chunk = stream.add(progress)
            if chunk is None:
                continue
            if chunk.size and not stream.begun:
                stream.begun = True
                self.engine.statistics.first_chunks += 1
                waited = time.perf_counter() - progress.request.arrived
                self.engine.statistics.first_chunk_seconds += waited
            stream.send(chunk, progress)

    def _take_orders(self) -> bool:
        """Do what was asked since the last step; wait for an order where there is no work."""
        while True:
            idle = not self.engine.busy
            if idle:
                self.engine.check_idle()
            try:
                order = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()

    def _step(self) -> list[Progress]:
        try:
            return self.engine.step()
        except Exception as error:  # noqa: BLE001 - whatever failed, its step's requests end with it
            reason = f"a decode step failed: {type(error).__name__}: {error}"
            return self.engine.fail_running(GenerationFailed(reason))
