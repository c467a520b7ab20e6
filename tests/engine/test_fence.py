"""Tests the limits and messages for a share of a GPU, with a simulated card."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from engine import fence
from engine.engine import EngineSettings
from engine.errors import NoRoom
from engine.language_model import LanguageModel


@dataclass
class Card:
    """A simulated card with 80 GB, and the limits that were set on it."""

    reserved_gb: float = 0.0
    fractions: list[float] = field(default_factory=list)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    properties = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: made.reserved_gb * 1e9)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", made.fractions.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return made


def test_a_fraction_is_fenced(card: Card):
    with fence.within("cuda", 0.25):
        pass
    assert card.fractions == [pytest.approx((20 - fence.CONTEXT_GB) / 80)]


@pytest.mark.parametrize(("device", "share"), [("cuda", 1.0), ("cpu", 0.25)])
def test_a_whole_card_and_a_cpu_are_not(card: Card, device: str, share: float):
    with fence.within(device, share):
        pass
    assert not card.fractions


def test_weights_that_do_not_fit_are_said_with_numbers(card: Card):
    with (
        pytest.raises(NoRoom, match=r"0\.05 of a GPU is 4\.0 GB, .*weights.*raise num_gpus"),
        fence.within("cuda", 0.05),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def get_budget(settings: EngineSettings, device: str = "cuda") -> tuple[float, str]:
    parameter = SimpleNamespace(device=torch.device(device))
    model = SimpleNamespace(_lm=SimpleNamespace(parameters=lambda: iter([parameter])))
    return LanguageModel._budget_gb(model, settings)  # type: ignore[arg-type]


def test_caches_get_what_the_weights_leave(card: Card):
    card.reserved_gb = 3.7
    left = 0.9 * 20 - fence.CONTEXT_GB - 3.7
    assert get_budget(EngineSettings(gpu_share=0.25))[0] == pytest.approx(left)
    assert get_budget(EngineSettings(gpu_share=0.25, cache_gb=5.0))[0] == 5.0
    told = (
        r"0\.25 of a GPU is 20\.0 GB, the weights take 3\.7 GB and leave 13\.7 GB, cache_gb is 15"
    )
    with pytest.raises(NoRoom, match=told):
        get_budget(EngineSettings(gpu_share=0.25, cache_gb=15.0))


def test_on_a_cpu_they_get_what_is_said(card: Card):
    assert get_budget(EngineSettings(), "cpu")[0] == 2.0
    assert get_budget(EngineSettings(cache_gb=0.5), "cpu") == (0.5, "0.5 GB (cache_gb)")
