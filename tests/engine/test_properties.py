"""Tests with random schedules that every request ends exactly once and no slot is lost."""

from dataclasses import dataclass

import hypothesis.strategies as some
import numpy as np
import pytest
from audiocraft.models.lm import LMModel
from hypothesis import HealthCheck, given, settings

from engine.checkpoints import load_language_model
from engine.conditioning import Conditions, build_attributes, encode_conditions
from engine.engine import Engine, EngineSettings
from engine.params import GenerationParams
from engine.request import Request
from engine.sequence import Sequence, Windowing
from tests.conftest import Checkpoints

SLOTS, MAX_FRAMES, STRIDE = 3, 12, 7


@dataclass(frozen=True)
class Plan:
    """One request of a random schedule."""

    arrives: int
    frames: int
    prompt: int
    text: str
    guidance: float
    temperature: float
    priority: int
    leaves: int | None


plans = some.lists(
    some.builds(
        Plan,
        arrives=some.integers(0, 30),
        frames=some.integers(2, 30),
        prompt=some.integers(0, 25),
        text=some.sampled_from(["", "rain", "slow jazz with piano"]),
        guidance=some.sampled_from([1.0, 3.0]),
        temperature=some.sampled_from([0.0, 1.0]),
        priority=some.integers(0, 2),
        leaves=some.none() | some.integers(0, 60),
    ),
    min_size=1,
    max_size=10,
)


@pytest.fixture(scope="module")
def engine(checkpoints: Checkpoints) -> Engine:
    lm = load_language_model(str(checkpoints.music), device="cpu", dtype="float32")
    return Engine(lm, EngineSettings(max_slots=SLOTS, max_positions=20, prefill_chunk=4))


@pytest.fixture(scope="module")
def conditions(checkpoints: Checkpoints) -> dict[str, Conditions]:
    lm: LMModel = load_language_model(str(checkpoints.music), device="cpu", dtype="float32")
    texts = ["", "rain", "slow jazz with piano"]
    return {text: encode_conditions(lm, build_attributes(lm, text)) for text in texts}


def build_request(plan: Plan, conditions: dict[str, Conditions]) -> Request:
    windowing = Windowing([0, 1, 2, 3], 512, MAX_FRAMES, STRIDE)
    prompt = np.zeros((4, min(plan.prompt, plan.frames - 1)), int)
    params = GenerationParams(
        plan.text, plan.frames, 1, plan.temperature, guidance_scale=plan.guidance
    )
    sequence = Sequence(windowing, plan.frames, prompt)
    return Request(params, conditions[plan.text], sequence, priority=plan.priority)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedule=plans)
def test_everyone_ends_once(
    engine: Engine, conditions: dict[str, Conditions], schedule: list[Plan]
):
    requests = [(plan, build_request(plan, conditions)) for plan in schedule]
    frames = {id(request): 0 for _, request in requests}
    ended: list[int] = []
    left: list[int] = []
    # Slots are never idle while someone waits, so the work of all, served one by one, bounds it.
    for step in range(30 + sum(3 * (p.frames + 4) + 30 for p in schedule)):
        for plan, request in requests:
            if plan.arrives == step:
                engine.scheduler.add_request(request)
            if plan.leaves == step and engine.cancel_request(request):
                left.append(id(request))
        for progress in engine.step():
            key = id(progress.request)
            assert key not in ended
            assert key not in left
            assert progress.error is None
            frames[key] += progress.codes.shape[1]
            if progress.ended:
                ended.append(key)
        engine.check_idle()
    assert not engine.busy
    for plan, request in requests:
        key = id(request)
        assert (key in ended) != (key in left)
        if key in ended:
            assert frames[key] == plan.frames - request.sequence.prompt_frames
