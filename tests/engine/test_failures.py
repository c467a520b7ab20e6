"""Tests that a failure ends only the requests that it concerns, and that no reader hangs."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

import engine.device
from engine.errors import EngineFailed, GenerationFailed
from engine.language_model import LanguageModel
from engine.request import Request
from tests.engine.test_loop import LONGER, PARAMS, generate, model, wait_until_idle

__all__ = ["model"]
LIMIT_S = 120
"""The time after which a reader that still waits has been forgotten."""


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
async def test_a_newcomer_whose_text_cannot_be_set_ends_alone(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    engine = model.loop.engine
    set_text = engine.decoder.set_text
    expected = await generate(model, LONGER)

    def refuse_the_second(slot: int, text: torch.Tensor | None) -> None:
        if slot == 1:
            raise error("no memory left")
        set_text(slot, text)

    monkeypatch.setattr(engine.decoder, "set_text", refuse_the_second)
    first = asyncio.ensure_future(generate(model, LONGER))
    while not engine.scheduler.running:
        await asyncio.sleep(0.001)
    with pytest.raises(GenerationFailed, match=r"text could not be set: .*no memory left"):
        await generate(model, LONGER)
    np.testing.assert_array_equal(await first, expected)
    await wait_until_idle(model)
    assert engine.scheduler.pages.limit == engine.scheduler.pages.number


async def test_a_request_that_cannot_go_on_ends_alone(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    """The neighbour ends in the same step, before the other fails to open its next window."""
    expected = await generate(model)

    def fail(request: Request) -> None:
        raise ValueError("no further window")

    monkeypatch.setattr(Request, "open_next_window", fail)
    windowing = replace(model._windowing, max_frames=40, stride_frames=20)
    monkeypatch.setattr(model, "_windowing_for", lambda params: windowing)
    async with asyncio.timeout(LIMIT_S):
        ended, failed = await asyncio.gather(
            generate(model), generate(model, LONGER), return_exceptions=True
        )
    np.testing.assert_array_equal(ended, expected)
    assert isinstance(failed, GenerationFailed)
    await wait_until_idle(model)


async def end_the_thread(model: LanguageModel) -> None:
    """Wait until the engine's thread has ended."""
    async with asyncio.timeout(LIMIT_S):
        while model.loop._thread.is_alive():
            await asyncio.sleep(0.001)


async def test_an_error_while_results_are_sent_ends_every_stream(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    def fail(stream: object, *given: object) -> None:
        raise ValueError("no chunk")

    running = asyncio.ensure_future(generate(model, LONGER))
    while not model.loop.engine.scheduler.running:
        await asyncio.sleep(0.001)
    monkeypatch.setattr("engine.loop.Stream.add_progress", fail)
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(EngineFailed, match="no chunk"):
            await running
    await end_the_thread(model)
    with pytest.raises(EngineFailed, match="no chunk"):
        model.loop.check_alive()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(EngineFailed, match="no chunk"):
            await generate(model)


def refuse_all_work() -> None:
    """Behave as CUDA does after an illegal access."""
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("where", ["forward", "set_text"])
async def test_a_gpu_that_refuses_all_work_ends_the_thread(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, where: str
):
    """Running, waiting and later requests learn it at once; today each step failed anew."""
    running = [asyncio.ensure_future(generate(model, LONGER)) for _ in range(6)]
    while len(model.loop.engine.scheduler.running) < 4:
        await asyncio.sleep(0.001)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", refuse_all_work)
    monkeypatch.setattr(model.loop.engine.decoder, where, lambda *given: refuse_all_work())
    with suppress(GenerationFailed):  # a request that ends frees its slot for one whose text is set
        running[0].cancel()
    async with asyncio.timeout(LIMIT_S):
        ended = await asyncio.gather(*running[1:], return_exceptions=True)
        with pytest.raises(EngineFailed, match="illegal memory access"):
            await generate(model)
    assert [type(one) for one in ended] == [EngineFailed] * 5
    await end_the_thread(model)


async def test_a_gpu_that_answers_again_ends_nothing(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append(True))
    monkeypatch.setattr(model.loop.engine, "run", lambda segments: refuse_all_work())
    with pytest.raises(GenerationFailed, match="illegal memory access"):
        await generate(model, PARAMS)
    assert asked
    model.loop.check_alive()
    engine.device.check_device()
