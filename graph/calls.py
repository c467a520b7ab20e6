"""Calls of other deployments: their own typed errors come back, and no call outlives its caller.

The trace that a call is made in goes along; `deployments.tracing.traced` takes it up.
"""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from opentelemetry.context import attach, get_current
from opentelemetry.trace import SpanKind, use_span
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError
from ray.serve.context import _get_serve_request_context, _serve_request_context
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.tracing import begin, carried
from engine.errors import EngineError
from graph.errors import ApiError

T = TypeVar("T")
UNREACHABLE = (BackPressureError, DeploymentUnavailableError)
LOST = (RayActorError, NodeDiedError, ObjectLostError)
"""A replica's process has ended, or its node; or what it returned went with the node."""


class ReplicaLost(ApiError):
    """The replica that a call was made on is no more; whatever it did is lost."""


class Method(Protocol):
    """A method of a deployment, such as `handle.decode`."""

    def remote(self, *args: Any, **carried: Any) -> Any:
        """Call it; the answer is awaitable."""


async def call(method: Method, *args: Any) -> Any:
    """Call a deployment; its own typed errors come back as they were raised there.

    Raises ApiError 503 where no replica can answer, ReplicaLost where one is lost meanwhile.
    """
    with _own_errors():
        return await method.remote(*args, **carried())


async def stream(method: Method, *args: Any) -> AsyncGenerator[Any, None]:
    """Call a deployment's generator, likewise; who leaves it cancels the call."""
    answers = method.remote(*args, **carried())
    ended = False
    try:
        with _own_errors():
            async for answer in answers:
                yield answer
        ended = True
    finally:
        if not ended:
            answers.cancel()


@contextmanager
def _own_errors() -> Iterator[None]:
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


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await calls side by side; where one fails, or the caller leaves, the others end with it."""
    tasks = [asyncio.ensure_future(one) for one in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def last(answers: AsyncGenerator[T, None]) -> T:
    """Read a generator to its end; return what came last."""
    async with aclosing(answers):
        async for answer in answers:
            kept = answer
    return kept


def apart(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start work that may outlive its request, in the request's name: its logs, its trace.

    Serve cancels what bears a request's internal id once its client has left: this does not.
    """
    named, trace = replace(_get_serve_request_context(), _internal_request_id=""), get_current()
    context = contextvars.Context()
    context.run(_serve_request_context.set, named)
    context.run(attach, trace)
    return asyncio.create_task(work, context=context)


async def in_the_name_of(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Do work of no request: `name` stands in all its logs, and it begins a trace of its own."""

    async def traced() -> T:
        begun = begin(
            name.partition("_")[0], SpanKind.CONSUMER, {}, {"audiocraft.request_id": name}
        )
        with use_span(begun, end_on_exit=True):
            return await work

    context = contextvars.Context()
    context.run(_serve_request_context.set, replace(_get_serve_request_context(), request_id=name))
    return await asyncio.create_task(traced(), context=context)
