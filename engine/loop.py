"""Runs an engine on its own thread; asyncio code submits requests to it and reads their codes."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditions
from engine.device import check_device
from engine.engine import Engine
from engine.errors import EngineFailed, GenerationFailed
from engine.request import Progress, Request

Codes = NDArray[np.int16]

logger = logging.getLogger(__name__)


class Stream:
    """Passes the codes of one request from the engine's thread to its reader.

    The queue is unbounded, so a slow reader does not delay other requests; the codes of a whole
    clip take only some kilobytes.
    """

    def __init__(self, chunk_frames: int, first_chunk_frames: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunk_frames, self._next_size = chunk_frames, first_chunk_frames
        self._pending: list[Codes] = []
        self.begun = False
        """Whether codes were sent to the reader."""
        self._arrived: asyncio.Queue[tuple[Codes, Progress]] = asyncio.Queue()

    def add_progress(self, progress: Progress) -> Codes | None:
        """Collect the result of a step, on the engine's thread; return a chunk once it is full."""
        self._pending.append(progress.codes)
        if not progress.ended and sum(c.shape[1] for c in self._pending) < self._next_size:
            return None
        chunk = np.concatenate(self._pending, axis=1)
        self._pending, self._next_size = [], self._chunk_frames
        return chunk

    def send_chunk(self, chunk: Codes, progress: Progress) -> None:
        """Send a chunk to the reader, with the progress that completed it."""
        with suppress(RuntimeError):  # raised if the reader's event loop is closed
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (chunk, progress))

    async def next_chunk(self) -> tuple[Codes, Progress]:
        """Wait for the next chunk, and the progress that completed it."""
        return await self._arrived.get()


class EngineLoop:
    """Owns an engine and its thread; the public methods may be called from asyncio."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[Request, Stream] = {}
        self._counted_until = 0.0
        """The time of `time.perf_counter` up to which the seconds of work are counted."""
        self._failure: EngineFailed | None = None
        self._thread = threading.Thread(target=self._run_thread, name="engine", daemon=True)
        self._thread.start()

    async def generate(
        self, request: Request, chunk_frames: int = 50, first_chunk_frames: int | None = None
    ) -> AsyncGenerator[Codes, None]:
        """Yield the request's codes, int16 [codebooks, frames], at least `chunk_frames` at once.

        Closing the generator frees the request's slot within one step. Raises the EngineError
        that ended the request: EngineFailed if the thread has ended, or ends before the request.
        """
        stream = Stream(chunk_frames, first_chunk_frames or chunk_frames)
        # Registered before the failure is read: a thread that ends reads them in the other order.
        self._streams[request] = stream
        self.check_alive()
        self._inbox.put(lambda: self.engine.scheduler.add_request(request))
        ended = False
        try:
            while not ended:
                codes, progress = await stream.next_chunk()
                ended = progress.ended
                if progress.error:
                    raise progress.error
                if codes.size:
                    yield codes
        finally:
            if not ended:
                self._inbox.put(lambda: self._cancel_request(request))

    def replace_conditions(self, request: Request, conditions: Conditions) -> None:
        """Continue a request with another text from its next frame on. Raises InvalidRequest."""
        request.check_replaceable(conditions)
        self.engine.check_text(conditions)
        self._inbox.put(lambda: self._replace_conditions(request, conditions))

    def close(self) -> None:
        """Stop the thread after its current step, and wait for it."""
        self._inbox.put(None)
        self._thread.join()
        self._failure = self._failure or EngineFailed("the engine's thread has ended")

    def check_alive(self) -> None:
        """Raise EngineFailed if an error has ended the thread, or `close` was called."""
        if self._failure:
            raise EngineFailed(str(self._failure))

    def _cancel_request(self, request: Request) -> None:
        if self._streams.pop(request, None):
            self.engine.cancel_request(request)

    def _replace_conditions(self, request: Request, conditions: Conditions) -> None:
        if request in self._streams:
            try:
                self.engine.replace_conditions(request, conditions)
            except Exception as error:  # noqa: BLE001 - any failure must end this request only
                what = "its text could not be replaced"
                self._send_results([self.engine.fail_alone(request, what, error)])

    def _run_thread(self) -> None:
        """Run steps until `close`; an error that no request can be blamed for ends the thread."""
        try:
            while self._handle_commands():
                results = self._step_or_fail()
                now = time.perf_counter()
                self.engine.statistics.seconds += now - self._counted_until
                self._counted_until = now
                self._send_results(results)
        except Exception as error:
            logger.exception("the engine's thread ends")
            self._failure = EngineFailed(f"the engine failed: {type(error).__name__}: {error}")
            none = np.zeros((self.engine.decoder.codebooks, 0), np.int16)
            for request, stream in list(self._streams.items()):
                stream.send_chunk(none, Progress(request, none, True, self._failure))

    def _send_results(self, results: list[Progress]) -> None:
        for progress in results:
            stream = self._streams[progress.request]
            chunk = stream.add_progress(progress)
            if chunk is not None:
                self._count_first_chunk(stream, chunk, progress.request)
                stream.send_chunk(chunk, progress)
            if progress.ended:
                del self._streams[progress.request]

    def _count_first_chunk(self, stream: Stream, chunk: Codes, request: Request) -> None:
        if chunk.size and not stream.begun:
            stream.begun = True
            self.engine.statistics.first_chunks += 1
            waited = time.perf_counter() - request.arrived
            self.engine.statistics.first_chunk_seconds += waited

    def _handle_commands(self) -> bool:
        """Run the queued commands, and wait for one while idle; return False to stop the thread."""
        while True:
            idle = not self.engine.busy
            if idle:
                self.engine.check_idle()
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            if idle:
                self._counted_until = time.perf_counter()
            command()

    def _step_or_fail(self) -> list[Progress]:
        try:
            return self.engine.step()
        except Exception as error:  # noqa: BLE001 - any failure must end the step's requests only
            check_device()
            reason = f"a decode step failed: {type(error).__name__}: {error}"
            return self.engine.fail_running(GenerationFailed(reason))
