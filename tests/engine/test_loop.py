"""Tests the engine's thread: streams, cancellation, failures, seeds, resuming and limits."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from bundles.tiny import recipe
from engine.cache import Segment, slot_bytes
from engine.checkpoints import load_language_model
from engine.engine import EngineSettings
from engine.errors import CheckpointMismatch, GenerationFailed, InvalidRequest, NoRoom
from engine.language_model import LanguageModel
from engine.params import Codes, GenerationParams
from tests import checkpoints as write
from tests.conftest import Checkpoints
from tests.engine.cpu import BFLOAT16

ROOT = Path(__file__).resolve().parents[2]
PARAMS = GenerationParams("calm piano", frames=40, seed=7)
LONGER = replace(PARAMS, frames=120)


@pytest.fixture
def model(checkpoints: Checkpoints, request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    precision = getattr(request, "param", "float32")
    settings = EngineSettings(max_slots=4, max_text_tokens=64, prefill_chunk=8, precision=precision)
    model = LanguageModel.load(
        str(checkpoints.music), settings, device="cpu", frame_rate=50, stride_seconds=18
    )
    yield model
    model.loop.close()


async def generate(model: LanguageModel, params: GenerationParams = PARAMS):
    request = model.prepare(params)
    async with aclosing(model.loop.generate(request)) as chunks:
        return np.concatenate([chunk async for chunk in chunks], axis=1)


async def wait_until_idle(model: LanguageModel) -> None:
    """Wait until no request is running or waiting, and check that all slots are free."""
    while model.loop.engine.busy:
        await asyncio.sleep(0.005)
    model.loop.engine.check_idle()


async def test_chunks_come_while_it_runs(model: LanguageModel):
    request = model.build_request(PARAMS, model.encode_text("calm piano"))
    sizes, running = [], []
    async for chunk in model.loop.generate(request, chunk_frames=10, first_chunk_frames=3):
        sizes.append(chunk.shape[1])
        running.append(model.loop.engine.busy)
    assert sizes[0] == 3
    assert all(size >= 10 for size in sizes[1:-1])
    assert sum(sizes) == 40
    assert running[0]
    await wait_until_idle(model)


async def test_same_seed_same_codes_whoever_shares_the_batch(model: LanguageModel):
    alone = await generate(model)
    others = [replace(PARAMS, seed=s, frames=10 * s + 5, temperature=0.5 + s) for s in range(6)]
    together = await asyncio.gather(generate(model), *(generate(model, o) for o in others))
    np.testing.assert_array_equal(together[0], alone)
    assert [codes.shape[1] for codes in together[1:]] == [other.frames for other in others]
    assert model.loop.engine.statistics.requests > model.loop.engine.statistics.steps
    assert (await generate(model, replace(PARAMS, seed=8)) != alone).any()
    assert (await generate(model, replace(PARAMS, variation=1)) != alone).any()


@pytest.mark.parametrize("known", [1, 20, 38])
async def test_resumed_from_its_codes_it_goes_on_the_same(model: LanguageModel, known: int):
    whole = await generate(model)
    rest = await generate(model, replace(PARAMS, prompt=Codes.pack(whole[:, :known])))
    np.testing.assert_array_equal(rest, whole[:, known:])


async def test_a_running_requests_text_can_be_replaced(model: LanguageModel):
    """Past codes stay, the next ones follow the new text, and other requests are not affected."""
    params = replace(PARAMS, frames=400)
    texts = {text: model.encode_text(text) for text in ("calm piano", "thunder and rain", "")}

    async def generate_with_change(text: str) -> tuple[int, np.ndarray]:
        request = model.build_request(params, texts["calm piano"])
        parts = []
        async for chunk in model.loop.generate(request, chunk_frames=10):
            if not parts:
                model.loop.replace_conditions(request, texts[text])
            parts.append(chunk)
        return parts[0].shape[1], np.concatenate(parts, axis=1)

    unchanged = await generate(model, params)
    (_, same), (known, other), neighbour = await asyncio.gather(
        generate_with_change("calm piano"),
        generate_with_change("thunder and rain"),
        generate(model, params),
    )
    np.testing.assert_array_equal(same, unchanged)
    np.testing.assert_array_equal(neighbour, unchanged)
    np.testing.assert_array_equal(other[:, :known], unchanged[:, :known])
    assert (other[:, known:] != unchanged[:, known:]).any()
    request = model.build_request(params, texts["calm piano"])
    with pytest.raises(InvalidRequest, match="can become another text"):
        model.loop.replace_conditions(request, texts[""])


@pytest.mark.slow
async def test_a_clip_longer_than_the_window(model: LanguageModel):
    long = replace(PARAMS, frames=1600)
    assert (await generate(model, long)).shape == (4, 1600)


async def test_leaving_frees_the_slot_within_one_step(model: LanguageModel):
    engine = model.loop.engine
    request = model.build_request(replace(PARAMS, frames=1500), model.encode_text("calm piano"))
    async with aclosing(model.loop.generate(request, chunk_frames=1)) as chunks:
        async for _ in chunks:
            break
    await wait_until_idle(model)
    stopped = engine.statistics.steps
    assert stopped < 1500
    await generate(model)
    assert engine.statistics.steps - stopped == 43


async def test_leaving_before_it_begins(model: LanguageModel):
    conditions = model.encode_text("calm piano")
    waiting = [model.build_request(replace(PARAMS, frames=200), conditions) for _ in range(9)]
    tasks = [asyncio.ensure_future(anext(model.loop.generate(r))) for r in waiting]
    while model.loop.engine.scheduler.waiting < 5:
        await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await wait_until_idle(model)
    assert (await generate(model)).shape == (4, 40)


@pytest.mark.parametrize("model", ["float32", BFLOAT16, "int8"], indirect=True)
async def test_a_poisoned_request_fails_alone(model: LanguageModel):
    conditions = model.encode_text("calm piano")
    poison = replace(conditions, text=torch.full_like(conditions.text, torch.nan))
    expected = await generate(model)
    bad = model.loop.generate(model.build_request(PARAMS, poison))
    good, error = await asyncio.gather(generate(model), anext(bad), return_exceptions=True)
    assert isinstance(error, GenerationFailed)
    np.testing.assert_array_equal(good, expected)
    assert model.loop.engine.statistics.first_chunks == 2
    np.testing.assert_array_equal(await generate(model), expected), "the slot is clean again"


async def test_a_failing_step_ends_its_requests_and_nothing_else(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    expected = await generate(model)
    forward = model.loop.engine.decoder.forward

    def fail_once(*arguments: object) -> torch.Tensor:
        monkeypatch.setattr(model.loop.engine.decoder, "forward", forward)
        raise MemoryError("no memory left")

    monkeypatch.setattr(model.loop.engine.decoder, "forward", fail_once)
    with pytest.raises(GenerationFailed, match="MemoryError: no memory left"):
        await generate(model)
    await wait_until_idle(model)
    np.testing.assert_array_equal(await generate(model), expected)


async def test_memory_that_runs_out_ends_who_came_last_and_shrinks(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    engine = model.loop.engine
    slots, forward = engine.scheduler.slots.number, engine.decoder.forward
    expected = await generate(model, LONGER)

    def run_two_at_most(inputs: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
        if len(segments) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(inputs, segments)

    monkeypatch.setattr(engine.decoder, "forward", run_two_at_most)
    first, second = (asyncio.ensure_future(generate(model, LONGER)) for _ in range(2))
    while len(engine.scheduler.running) < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(GenerationFailed, match="memory ran out"):
        await generate(model, LONGER)
    for made in await asyncio.gather(first, second):
        np.testing.assert_array_equal(made, expected)
    assert engine.scheduler.slots.number == slots - 1
    await wait_until_idle(model)
    while engine.scheduler.slots.number > 2:
        await asyncio.gather(
            *(generate(model, LONGER) for _ in range(slots)), return_exceptions=True
        )
    again = await asyncio.gather(*(generate(model, LONGER) for _ in range(5)))
    assert all(np.array_equal(made, expected) for made in again), "they wait for the two left"


@pytest.mark.slow
async def test_a_failing_replacement_ends_its_request_alone(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    expected = await generate(model, replace(PARAMS, frames=300))
    conditions = model.encode_text("calm piano")
    request = model.build_request(replace(PARAMS, frames=300), conditions)
    running = model.loop.generate(request, chunk_frames=10)
    neighbour = asyncio.ensure_future(generate(model, replace(PARAMS, frames=300)))
    await anext(running)
    misshapen = replace(conditions, text=conditions.text[:, :-1])
    model.loop.replace_conditions(request, misshapen)
    with pytest.raises(GenerationFailed, match="its text could not be replaced"):
        _ = [chunk async for chunk in running]
    np.testing.assert_array_equal(await neighbour, expected)
    model.loop.check_alive()
    model.loop.close()
    with pytest.raises(RuntimeError, match="the engine's thread has ended"):
        model.loop.check_alive()


async def test_priorities_and_arrival_decide_who_is_next(model: LanguageModel):
    conditions = model.encode_text("calm piano")
    ended: list[int] = []

    async def run(number: int, priority: int) -> None:
        request = model.build_request(PARAMS, conditions)
        request.priority = priority
        async for _ in model.loop.generate(request, chunk_frames=40):
            pass
        ended.append(number)

    tasks = [run(number, priority) for number, priority in enumerate([0, 0, 0, 0, 5, 5, 1, 1])]
    await asyncio.gather(*tasks)
    assert sorted(ended[:4]) == [0, 1, 2, 3]
    assert sorted(ended[4:]) == [4, 5, 6, 7]
    assert ended[4:] == [6, 7, 4, 5]


def test_a_text_that_is_too_long(model: LanguageModel):
    with pytest.raises(InvalidRequest, match="tokens long; this model takes up to 64"):
        model.build_request(PARAMS, model.encode_text("a very " * 100))
    running = model.build_request(PARAMS, model.encode_text("calm piano"))
    with pytest.raises(InvalidRequest, match="tokens long; this model takes up to 64"):
        model.loop.replace_conditions(running, model.encode_text("a very " * 100))


def test_variations_share_their_conditions(model: LanguageModel):
    assert model.encode_text("calm piano") is model.encode_text("calm piano")


# Layers, width, and positions of a slot: the window's columns, chroma and text before them.
PUBLISHED = {
    "musicgen-small": (24, 1024, 1504),
    "musicgen-melody": (48, 1536, 1504 + 235 + 256),
    "audiogen-medium": (48, 1536, 504),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_gpu_configuration_has_room_for_slots(name: str):
    """The caches in the shipped file hold at least four slots of each published model."""
    config = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text())
    models = {m["name"]: m for m in config["applications"][0]["args"]["models"]}
    layers, width, positions = PUBLISHED[name]
    lm = SimpleNamespace(dim=width, transformer=SimpleNamespace(layers=range(layers)))
    budget = models[name]["engine"]["cache_gb"] * 1e9
    assert budget / slot_bytes(lm, positions, 256, models[name]["dtype"]) >= 4


@pytest.mark.parametrize(
    ("key", "value", "needs"),
    [
        ("transformer_lm.norm_first", False, "norm_first"),
        ("transformer_lm.bias_attn", True, "no attention biases"),
        ("transformer_lm.bias_proj", True, "no head biases"),
        ("transformer_lm.memory_efficient", False, "packed projections"),
        ("transformer_lm.activation", "relu", "exact GELU"),
        ("transformer_lm.qk_layer_norm", True, "no query or key norm"),
        ("codebooks_pattern.modeling", "unroll", "plain delays"),
    ],
)
def test_another_architecture_is_refused(
    checkpoints: Checkpoints, tmp_path: Path, key: str, value: object, needs: str
):
    cfg = recipe.language_model_config(30.0)
    OmegaConf.update(cfg, key, value)
    write.write_language_model(tmp_path, checkpoints.text_encoder, cfg)
    with pytest.raises(CheckpointMismatch, match=needs):
        LanguageModel.load(
            str(tmp_path), EngineSettings(), device="cpu", frame_rate=50, stride_seconds=18
        )


def test_slots_follow_from_the_budget(checkpoints: Checkpoints):
    lm = load_language_model(str(checkpoints.music), device="cpu", dtype="float32")
    each = slot_bytes(lm, 1504, 64, "float32")
    assert each == 2 * 4 * 64 * 4 * (2 * 1504 + 64)

    def slots(gigabytes: float) -> int:
        settings = EngineSettings(max_slots=10, max_text_tokens=64, cache_gb=gigabytes)
        model = LanguageModel(lm, settings, frame_rate=50, stride_seconds=18)
        model.loop.close()
        cache = model.loop.engine.decoder.cache
        taken = cache.past.nbytes + cache.text.nbytes
        assert taken == each * model.loop.engine.scheduler.slots.number <= gigabytes * 1e9
        return model.loop.engine.scheduler.slots.number

    assert slots(3.5 * each / 1e9) == 3
    assert slots(1.0) == 10
    with pytest.raises(
        NoRoom,
        match=r"a slot takes 6\.3 MB of cache, the budget is 0\.001 GB .* raise it to 0\.01 GB",
    ):
        slots(0.001)


def test_a_tiny_temperature_is_refused(model: LanguageModel):
    params = replace(PARAMS, temperature=1e-40)
    with pytest.raises(InvalidRequest, match="temperature"):
        model.build_request(params, model.encode_text(params.text))
