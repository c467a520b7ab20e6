"""Tests that pages always suffice for the requests that were started, and who starts when."""

import numpy as np
import pytest
import torch

from engine.conditioning import Conditions
from engine.errors import GenerationFailed
from engine.page_table import LONGEST_RECOVERY, PageTable, count_pages, count_peak_pages
from engine.params import GenerationParams
from engine.request import Request
from engine.scheduler import Scheduler
from engine.sequence import Sequence, Windowing

MAX_FRAMES, STRIDE, TEXT, PREFIX = 300, 180, 40, 50
LARGEST = 2 * count_pages(PREFIX + MAX_FRAMES + 3) + count_pages(TEXT)
CPU = torch.device("cpu")


def build_request(
    frames: int, prompt: int = 0, text: int = 5, prefix: int = 0, guidance: float = 3.0
) -> Request:
    windowing = Windowing([0, 1, 2, 3], 512, MAX_FRAMES, STRIDE)
    conditions = Conditions(torch.zeros(text, 4), torch.zeros(2, prefix, 4) if prefix else None)
    params = GenerationParams("", frames, 0, guidance_scale=guidance)
    return Request(params, conditions, Sequence(windowing, frames, np.zeros((4, prompt), int)))


def build_scheduler(pages: int, slots: int = 32) -> Scheduler:
    return Scheduler(PageTable(slots, pages, PREFIX + MAX_FRAMES + 3, CPU), chunk=64)


def run_step(scheduler: Scheduler) -> int:
    """Do what the engine does in a step, without a model; return the pages that are held in it."""
    for _, request in scheduler.admit_requests():
        scheduler.hold_text(request)
    segments = scheduler.plan_segments()
    held = scheduler.pages.used
    for segment in segments:
        request = scheduler.running[segment.slot]
        request.fed += segment.count
        if request.unfed == 0:
            request.sequence.accept_codes(np.zeros(4, int))
        if request.sequence.ended:
            scheduler.remove_request(request)
        elif request.sequence.window_ended:
            request.open_next_window()
    return held


@pytest.mark.parametrize("seed", range(8))
def test_pages_always_suffice(seed: int):
    """A table that is out of pages raises IndexError. Prompts, windows and prefixes are mixed."""
    draw = np.random.default_rng(seed)
    scheduler, left, used = build_scheduler(3 * LARGEST), 60, 0
    while left or scheduler.running or scheduler.waiting:
        while left and scheduler.waiting < 4:
            frames, left = int(draw.integers(2, 700 if draw.random() < 0.2 else 250)), left - 1
            prompt = int(draw.integers(0, frames)) if draw.random() < 0.3 else 0
            prefix = PREFIX if draw.random() < 0.2 else 0
            text, guidance = int(draw.integers(0, TEXT)), float(draw.choice([1, 3]))
            scheduler.add_request(build_request(frames, prompt, text, prefix, guidance))
        if scheduler.running and draw.random() < 0.003:
            scheduler.remove_request(next(iter(scheduler.running.values())))
        used = max(used, run_step(scheduler))
    assert used > 0.9 * scheduler.pages.number, "they do use what there is"
    scheduler.pages.check_idle()


def test_the_computed_peak_is_what_is_held():
    scheduler = build_scheduler(3 * LARGEST)
    for frames in (40, 250, 90, 130):
        scheduler.add_request(build_request(frames))
        for _ in range(30):
            run_step(scheduler)
    expected, most = count_peak_pages([one.demand for one in scheduler.running.values()]), 0
    while scheduler.running:
        most = max(most, run_step(scheduler))
    assert most == expected


def test_more_run_at_once_than_their_last_pages_would_let():
    scheduler, draw, promised = build_scheduler(6 * LARGEST), np.random.default_rng(1), []
    for _ in range(3000):
        if not scheduler.waiting:
            scheduler.add_request(build_request(int(draw.integers(20, MAX_FRAMES))))
        run_step(scheduler)
        demands = [one.demand for one in scheduler.running.values()]
        promised.append(sum(one.rows * count_pages(one.needed) for one in demands))
    assert np.mean(promised) > 1.3 * scheduler.pages.number


def test_a_large_request_is_not_starved_by_small_ones():
    """It starts at the latest when those that ran before it have ended, whoever comes later."""
    scheduler = build_scheduler(LARGEST)
    for _ in range(4):
        scheduler.add_request(build_request(60))
    run_step(scheduler)
    large = build_request(700)
    scheduler.add_request(large)
    steps = 0
    while large.slot is None:
        scheduler.add_request(build_request(20))
        assert all(one.arrived <= large.arrived for one in scheduler.running.values())
        run_step(scheduler)
        steps += 1
    assert steps <= 63


def test_a_short_text_and_one_row_take_less():
    scheduler = build_scheduler(LARGEST)
    for rows, guidance in ((1, 1.0), (2, 3.0)):
        request = build_request(60, text=17, guidance=guidance)
        scheduler.add_request(request)
        used = run_step(scheduler)
        while scheduler.running:
            used = run_step(scheduler)
        assert used == rows * count_pages(63) + 2


def test_a_replaced_text_must_find_room():
    scheduler = build_scheduler(LARGEST)
    request = build_request(60, text=5)
    scheduler.add_request(request)
    run_step(scheduler)
    before = scheduler.pages.used
    request.conditions = Conditions(torch.zeros(TEXT, 4), None)
    scheduler.replace_text(request)
    assert scheduler.pages.used == before + count_pages(TEXT) - 1
    scheduler.pages.limit = scheduler.pages.used
    request.conditions = Conditions(torch.zeros(4 * TEXT, 4), None)
    with pytest.raises(GenerationFailed, match="no room for a longer text"):
        scheduler.replace_text(request)


def test_a_pool_that_shrank_grows_back():
    scheduler = build_scheduler(LARGEST)
    pages, pause = scheduler.pages, 0
    for _ in range(2):
        steps = 0
        scheduler.shrink_pool()
        assert pages.limit == 0
        scheduler.add_request(build_request(60))
        run_step(scheduler)
        assert scheduler.running, "one request can always run"
        while pages.limit < pages.number:
            pages.count_step()
            steps += 1
        scheduler.remove_request(next(iter(scheduler.running.values())))
        assert steps > 1.5 * pause, "it takes longer each time"
        pause = steps


def test_a_shortage_of_long_ago_withholds_nothing_for_days():
    pages = build_scheduler(LARGEST).pages
    for _ in range(50):
        pages.shrink(0)
    for _ in range(LONGEST_RECOVERY):
        pages.count_step()
    assert pages.limit == pages.number
