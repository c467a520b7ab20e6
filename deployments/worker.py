"""What a replica's process needs before and around its model: settings, logs, one busy thread."""

import asyncio
import importlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import MemoryHandler
from typing import Any, TypeVar

T = TypeVar("T")


def prepare_hub(*sources: str | None) -> None:
    """Set the hub libraries' environment; they read it when they are imported.

    An embedded bundle needs no network, so none is tried where all sources are bundles.
    """
    token = os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if token:
        os.environ.setdefault("HF_TOKEN", token)
    if all(source.startswith("bundle:") for source in sources if source):
        os.environ["HF_HUB_OFFLINE"] = "1"


def keep_logs() -> None:
    """Let the replica's log outlive the import of AudioCraft.

    That imports submitit, which configures logging as it is imported: `dictConfig` closes every
    handler of the process, and Serve's, which buffers, drops its file. It is imported here, once,
    and the handler given its file again.
    """
    kept = [
        (handler, handler.target)
        for handler in logging.getLogger("ray.serve").handlers
        if isinstance(handler, MemoryHandler)
    ]
    importlib.import_module("submitit.core.logger")
    for handler, target in kept:
        handler.setTarget(target)


class Worker:
    """One thread that runs a model's blocking calls, in order, off the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function` on the thread.

        If the caller is cancelled, a call that has not begun never begins; one that has begun
        runs on, so it must watch a flag of its own.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)


class Health:
    """Decides when a model must show that it still answers.

    A busy model is healthy while its count of finished work grows; probing it would only wait
    behind that work. `stall_seconds` without progress under work is a failure.
    """

    def __init__(self, stall_seconds: float = 60.0) -> None:
        self._stall_seconds = stall_seconds
        self._progress = -1
        self._moved_at = time.monotonic()

    def needs_probe(self, progress: int, busy: bool) -> bool:
        """Take the model's progress; say whether to probe it. Raises RuntimeError on a stall."""
        moved = progress != self._progress
        if moved:
            self._progress, self._moved_at = progress, time.monotonic()
        stalled = time.monotonic() - self._moved_at
        if busy and not moved and stalled > self._stall_seconds:
            raise RuntimeError(f"no step finished for {stalled:.0f} s")
        return not busy and not moved
