"""Calls other deployments: their typed errors come back, and no call outlives its caller.

The caller's trace is passed along; `deployments.tracing.trace_calls` continues it. The result of
a call depends on its arguments alone, which include seeds and states. So where a replica is lost
(its node died, its process was killed, or it hung and was ended) another replica returns the same.
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any, Protocol, TypeVar

from opentelemetry.context import attach, get_current
from opentelemetry.trace import SpanKind, use_span
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.ray_private import detach_request, name_request
from deployments.tracing import begin_span, get_trace_argument
from engine.errors import EngineError
from engine.params import Codes, Generated, GenerationParams
from graph.errors import ApiError

T = TypeVar("T")
logger = logging.getLogger("ray.serve")
UNREACHABLE = (BackPressureError, DeploymentUnavailableError)
LOST = (RayActorError, NodeDiedError, ObjectLostError, OutOfMemoryError)
"""Errors where a replica's process or node has ended, or a result was lost with its node. Ray ends
processes of a node that runs out of memory, whoever takes that memory."""


class ReplicaLost(ApiError):
    """The replica of a call has ended, and the call with it."""


class Method(Protocol):
    """A method of a deployment, such as `handle.decode`."""

    def remote(self, *args: Any, **carried: Any) -> Any:
        """Call it; the answer is awaitable."""


async def call(method: Method, *args: Any) -> Any:
    """Call a deployment; its own typed errors come back as they were raised there.

    Raises ApiError 503 where no replica can answer, ReplicaLost where the replica is lost.
    """
    with _map_errors():
        return await method.remote(*args, **get_trace_argument())


async def stream(method: Method, *args: Any) -> AsyncGenerator[Any, None]:
    """Call a deployment's generator; closing it early cancels the call. Raises as `call` does."""
    answers = method.remote(*args, **get_trace_argument())
    ended = False
    try:
        with _map_errors():
            async for answer in answers:
                yield answer
        ended = True
    finally:
        if not ended:
            answers.cancel()


@contextmanager
def _map_errors() -> Iterator[None]:
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, EngineError):
            raise error.cause from error
        raise
    except (*UNREACHABLE, *LOST) as error:
        message = "a model behind this request cannot be reached now; try again"
        kind = ReplicaLost if isinstance(error, LOST) else ApiError
        raise kind(503, "model_unavailable", message) from error


MAX_LOSSES = 1
"""How many replicas a call may lose: one that makes a replica unhealthy meets one other at most."""


def _count_loss(lost: ReplicaLost, losses: int) -> None:
    """Log a lost replica. Raises ReplicaLost after more than `MAX_LOSSES`."""
    if losses > MAX_LOSSES:
        raise lost
    logger.warning("a replica was lost, another continues: %s", lost.__cause__)


async def call_again(method: Method, *args: Any) -> Any:
    """Call a deployment as `call` does; where its replica is lost, call another."""
    for losses in range(1, MAX_LOSSES + 1):
        try:
            return await call(method, *args)
        except ReplicaLost as lost:
            _count_loss(lost, losses)
    return await call(method, *args)


async def stream_again(method: Method, *args: Any) -> AsyncGenerator[Any, None]:
    """Call a generator as `stream` does; where its replica is lost, another begins again.

    This is for generators of which only the last item counts.
    """
    for losses in count(1):
        try:
            async with aclosing(stream(method, *args)) as answers:
                async for answer in answers:
                    yield answer
            return
        except ReplicaLost as lost:
            _count_loss(lost, losses)


async def resume_codes(
    generate: Callable[[GenerationParams], AsyncGenerator[Generated, None]],
    params: GenerationParams,
) -> AsyncGenerator[Generated, None]:
    """Yield what a language model generates; where its replica is lost, another continues.

    The codes that have arrived are its prompt then. Draws are keyed by their place in the clip,
    so the codes that follow are the same, in float32 barring near-ties. Seconds add up.
    """
    known = [params.prompt.array()] if params.prompt else []
    waited = ran = 0.0
    for losses in count(1):
        wait = run = 0.0
        try:
            async with aclosing(generate(params)) as chunks:
                async for chunk in chunks:
                    known.append(chunk.codes.array())
                    wait, run = chunk.wait_seconds, chunk.run_seconds
                    yield Generated(chunk.codes, waited + wait, ran + run)
            return
        except ReplicaLost as lost:
            _count_loss(lost, losses)
        if known:
            prompt = Codes.join(known)
            if prompt.frames == params.frames:
                return  # only the end of the stream was missing
            params = replace(params, prompt=prompt)
        waited, ran = waited + wait, ran + run


async def gather_all(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await calls side by side; where one fails or the caller is cancelled, all others end too."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def merge_streams(
    sources: Sequence[AsyncGenerator[T, None]],
    meanwhile: T | None = None,
    every_s: float | None = None,
) -> AsyncGenerator[T, None]:
    """Yield the items of all sources as they come, and `meanwhile` after each silent `every_s`.

    Where one source fails or the reader leaves, all end. Items that are not read yet wait without
    a bound, so each source must be bounded itself.
    """
    arrived: asyncio.Queue[T | None] = asyncio.Queue()

    async def feed_items(source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source):
            async for item in source:
                arrived.put_nowait(item)

    tasks = [asyncio.ensure_future(feed_items(source)) for source in sources]
    left = len(tasks)

    def note_end(task: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if not left or task.cancelled() or task.exception():
            arrived.put_nowait(None)

    for task in tasks:
        task.add_done_callback(note_end)
    try:
        while True:
            item = meanwhile
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    item = await arrived.get()
            if item is None:
                break
            yield item
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def start_detached(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start work that may outlive its request, under the request's id and trace.

    Serve cancels tasks with a request's internal id when its client leaves, but not this task.
    """
    trace = get_current()
    context = contextvars.Context()
    detach_request(context)
    context.run(attach, trace)
    return asyncio.create_task(work, context=context)


async def run_named(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Do work that belongs to no request; `name` is its id in logs, and it has its own trace."""

    async def run_traced() -> T:
        begun = begin_span(
            name.partition("_")[0], SpanKind.CONSUMER, {}, {"audiocraft.request_id": name}
        )
        with use_span(begun, end_on_exit=True):
            return await work

    context = contextvars.Context()
    name_request(context, name)
    return await asyncio.create_task(run_traced(), context=context)
