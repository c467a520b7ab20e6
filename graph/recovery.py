"""Goes on where a replica is lost: its node died, its process was killed, or it hung and was ended.

What a call gives follows from its arguments alone, seeds and carried states included, so another
replica gives the same: from the beginning, or for codes from the last that came.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from typing import Any

from engine.params import Codes, Generated, GenerationParams
from graph.calls import Method, ReplicaLost, call, stream

logger = logging.getLogger("ray.serve")
LOSSES = 2
"""Replicas that a call may lose. What ends each process that it comes to fails with the next."""


def _forgive(lost: ReplicaLost, losses: int) -> None:
    """Raise what was raised where it is one too many."""
    if losses > LOSSES:
        raise lost
    logger.warning("a replica was lost, another goes on: %s", lost.__cause__)


async def call_again(method: Method, *args: Any) -> Any:
    """Like `calls.call`; where its replica is lost, the next one does it."""
    for losses in range(1, LOSSES + 1):
        try:
            return await call(method, *args)
        except ReplicaLost as lost:
            _forgive(lost, losses)
    return await call(method, *args)


async def stream_again(method: Method, *args: Any) -> AsyncGenerator[Any, None]:
    """Like `calls.stream`; where its replica is lost, the next one begins anew.

    For answers of which only the last counts.
    """
    for losses in count(1):
        try:
            async with aclosing(stream(method, *args)) as answers:
                async for answer in answers:
                    yield answer
            return
        except ReplicaLost as lost:
            _forgive(lost, losses)


async def resumed(
    generate: Callable[[GenerationParams], AsyncGenerator[Generated, None]],
    params: GenerationParams,
) -> AsyncGenerator[Generated, None]:
    """Yield what a language model generates; where its replica is lost, the next one goes on.

    The codes that came are its prompt then: draws are keyed by their place in the clip, so those
    that follow are the same, in float32 barring near-ties. Seconds add up.
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
            _forgive(lost, losses)
        if known:
            prompt = Codes.join(known)
            if prompt.frames == params.frames:
                return  # all had come, only its end had not
            params = replace(params, prompt=prompt)
        waited, ran = waited + wait, ran + run
