"""Prepares a replica's process, runs its blocking calls on one thread, and checks its health."""

import asyncio
import importlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import MemoryHandler
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
logger = logging.getLogger("ray.serve")


def prepare_hub(*sources: str | None) -> None:
    """Set the environment that the hub libraries read when they are imported.

    If all sources are embedded bundles, the libraries are set to work offline.
    """
    token = os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if token:
        os.environ.setdefault("HF_TOKEN", token)
    if all(source.startswith("bundle:") for source in sources if source):
        os.environ["HF_HUB_OFFLINE"] = "1"


def keep_logs() -> None:
    """Import submitit early, and keep Serve's log handlers working.

    AudioCraft imports submitit, whose `dictConfig` closes every handler of the process. Serve's
    buffering handler then loses its file, so the file is set again after the import.
    """
    kept = [
        (handler, handler.target)
        for handler in logging.getLogger("ray.serve").handlers
        if isinstance(handler, MemoryHandler)
    ]
    importlib.import_module("submitit.core.logger")
    for handler, target in kept:
        handler.setTarget(target)


def end_replica(error: Exception) -> NoReturn:
    """End this process, whose engine or GPU has failed for good.

    Callers see at once that their replica is lost, and go on with another; Serve starts a new one
    when it finds the process gone, and waits for no further health checks.
    """
    logger.critical("this replica ends: %s", error)
    logging.shutdown()
    os._exit(1)


class Worker:
    """Runs a model's blocking calls off the event loop, by default on one thread and in order.

    `check_device` is called after a call has failed; if it raises, the process ends.
    """

    def __init__(
        self, threads: int = 1, *, check_device: Callable[[], None] = lambda: None
    ) -> None:
        self._check_device = check_device
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self.pending = 0
        """Calls that wait or run."""
        self.finished = 0
        """Calls that have ended."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function` on a thread.

        If the caller is cancelled, a queued call never begins. A running call continues, so it
        must check its own flag for cancellation.
        """
        loop = asyncio.get_running_loop()
        self.pending += 1
        try:
            return await loop.run_in_executor(self._threads, self._call, function, *arguments)
        finally:
            self.pending -= 1
            self.finished += 1

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return function(*arguments)
        except Exception:  # a lost device can raise any of them; the error goes on to the caller
            try:
                self._check_device()
            except Exception as failure:  # noqa: BLE001 - whatever it says, the device is lost
                end_replica(failure)
            raise


class Health:
    """Decides when a model must be probed.

    A busy model is healthy while its count of finished steps grows, and a probe would only wait in
    its queue. A busy model without progress for `stall_seconds` has failed.
    """

    def __init__(self, stall_seconds: float = 60.0) -> None:
        self._stall_seconds = stall_seconds
        self._progress = -1
        self._moved_at = time.monotonic()

    def needs_probe(self, progress: int, busy: bool) -> bool:
        """Return whether to probe the model, from its progress. Raises RuntimeError on a stall."""
        moved = progress != self._progress
        if moved:
            self._progress, self._moved_at = progress, time.monotonic()
        stalled = time.monotonic() - self._moved_at
        if busy and not moved and stalled > self._stall_seconds:
            raise RuntimeError(f"no step finished for {stalled:.0f} s")
        return not busy and not moved
