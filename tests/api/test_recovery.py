"""What a lost replica costs a request: nothing but time, until too many are lost."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError

from engine.params import Codes, Generated, GenerationParams
from graph.calls import MAX_LOSSES, ReplicaLost, call_again, resume_codes, stream_again
from tests.api.conftest import Answers, Method, Server

CLIP = np.random.default_rng(5).integers(512, size=(4, 90))
PARAMS = GenerationParams(text="calm piano", frames=90, seed=1)
LOST = ReplicaLost(503, "model_unavailable", "gone")


class Replicas:
    """Each attempt gives the clip's next codes in chunks of 20 frames, and is lost where told."""

    def __init__(self, *lost_after: int) -> None:
        self.lost_after = list(lost_after)
        self.begun_at: list[int] = []
        self.closed = 0

    async def generate(self, params: GenerationParams) -> AsyncGenerator[Generated, None]:
        known = params.prompt.frames if params.prompt else 0
        if params.prompt:
            np.testing.assert_array_equal(params.prompt.array(), CLIP[:, :known])
        self.begun_at.append(known)
        left = self.lost_after.pop(0) if self.lost_after else None
        try:
            for start in range(known, params.frames, 20):
                if left == 0:
                    raise LOST
                end = min(start + 20, params.frames)
                yield Generated(Codes.pack(CLIP[:, start:end]), 1.0, 0.1 * (end - known))
                left = None if left is None else left - 1
            if left is not None:
                raise LOST
        finally:
            self.closed += 1


async def made(replicas: Replicas, params: GenerationParams = PARAMS) -> list[Generated]:
    return [chunk async for chunk in resume_codes(replicas.generate, params)]


@pytest.mark.parametrize("known", [0, 30])
@pytest.mark.parametrize("lost_after", [(), (0,), (1,), (3,), (9,)])
async def test_codes_go_on_from_the_last_that_came(known: int, lost_after: tuple[int, ...]):
    prompt = Codes.pack(CLIP[:, :known]) if known else None
    replicas = Replicas(*lost_after)
    chunks = await made(replicas, replace(PARAMS, prompt=prompt))
    joined = np.concatenate([chunk.codes.array() for chunk in chunks], axis=1)
    np.testing.assert_array_equal(joined, CLIP[:, known:])
    assert replicas.closed == len(replicas.begun_at)


async def test_seconds_of_all_replicas_add_up():
    last = (await made(Replicas(2)))[-1]
    assert last.wait_seconds == 2.0
    assert last.run_seconds == pytest.approx(0.1 * 90)


async def test_a_clip_of_which_only_the_end_is_missing_is_not_asked_for_again():
    replicas = Replicas(9)
    assert sum(chunk.codes.frames for chunk in await made(replicas)) == 90
    assert replicas.begun_at == [0]


async def test_what_ends_every_replica_that_it_comes_to_fails():
    replicas = Replicas(*[1] * 9)
    with pytest.raises(ReplicaLost):
        await made(replicas)
    assert replicas.begun_at == [0, 20]
    assert len(replicas.begun_at) == MAX_LOSSES + 1


async def test_who_leaves_ends_the_attempt_that_runs():
    replicas = Replicas(1)
    async with aclosing(resume_codes(replicas.generate, PARAMS)) as chunks:
        async for _ in chunks:
            if replicas.begun_at == [0, 20]:
                break
    assert replicas.closed == 2


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("Ray ended it")])
@pytest.mark.parametrize("losses", [MAX_LOSSES, MAX_LOSSES + 1])
async def test_calls_are_made_again(losses: int, error: RayError):
    failing = [error] * losses

    def answer(question: str) -> str:
        if failing:
            raise failing.pop()
        return question.upper()

    async def answers(question: str) -> AsyncGenerator[str, None]:
        yield f"{question} ..."
        yield answer(question)

    class Streaming:
        def remote(self, *args: str, **_carried: str) -> Answers:
            return Answers(answers(*args))

    for_call, for_stream = call_again(Method(answer), "why"), stream_again(Streaming(), "why")
    if losses > MAX_LOSSES:
        with pytest.raises(ReplicaLost):
            await for_call
        failing[:] = [error] * losses
        with pytest.raises(ReplicaLost):
            assert [one async for one in for_stream]
        return
    assert await for_call == "WHY"
    failing[:] = [error] * losses
    assert [one async for one in for_stream] == ["why ..."] * (losses + 1) + ["WHY"]


async def test_a_model_that_refuses_is_asked_once(server: Server):
    """Only what is lost is done again: an error that the model raised would be raised again."""
    server.music.error = ZeroDivisionError()
    server.music.fails_at = 1
    assert (await server.generate()).status_code == 500
    assert len(server.music.seen) == 1
