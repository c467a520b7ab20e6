"""Tests that probabilities equal AudioCraft's, and that draws follow them."""

import pytest
import torch
from audiocraft.utils import utils

from engine.sampling import (
    Sampling,
    apply_guidance,
    draw_codes,
    draw_exponentials,
    filter_probabilities,
    sample_codes,
)
from tests.parity import Parity


def get_audiocraft_probabilities(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> torch.Tensor:
    """Return the probabilities that AudioCraft draws from, by intercepting its `multinomial`."""
    taken: list[torch.Tensor] = []

    def take(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        taken.append(probabilities.clone())
        return torch.zeros(*probabilities.shape[:-1], 1, dtype=torch.long)

    probabilities = torch.softmax(logits / temperature, dim=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "multinomial", take)
        if top_p > 0:
            order = probabilities.sort(dim=-1, descending=True).indices
            utils.sample_top_p(probabilities, top_p)
            return torch.zeros_like(probabilities).scatter(-1, order, taken[0])
        if top_k > 0:
            utils.sample_top_k(probabilities, top_k)
            return taken[0]
    return probabilities


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 3.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 0.0), (1, 0.0), (50, 0.0), (250, 0.5), (0, 0.95), (0, 1e-6), (0, 1.0)]
)
def test_probabilities_are_audiocrafts(
    temperature: float, top_k: int, top_p: float, parity: Parity
):
    generator = torch.Generator().manual_seed(1)
    for scale in (0.1, 1.0, 5.0):
        logits = scale * torch.randn(4, 512, generator=generator)
        ours = filter_probabilities(logits, temperature, top_k, top_p)
        theirs = get_audiocraft_probabilities(logits, temperature, top_k, top_p)
        what = "probabilities by temperature, top_k, top_p"
        assert parity("language models", what, ours, theirs) < 1e-5


def test_top_k_keeps_ties():
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    kept = filter_probabilities(logits, 1.0, top_k=2, top_p=0.0)
    assert (kept > 0).tolist() == [[True, True, True, True, False]]
    torch.testing.assert_close(kept, get_audiocraft_probabilities(logits, 1.0, 2, 0.0))


def draw_race(shape: tuple[int, int] = (4, 10), **key: int) -> torch.Tensor:
    parameters = {"seed": 7, "variation": 0, "step": 5} | key
    return torch.from_numpy(draw_exponentials(Sampling(**parameters, **REST), shape))


REST = {"temperature": 1.0, "top_k": 0, "top_p": 0.0}


def test_draws_follow_the_probabilities():
    """Chi-square of 40,000 draws of 10 classes is below 27.9 (9 degrees of freedom, p = 0.001)."""
    probabilities = torch.tensor([[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01]])
    drawn = torch.stack([draw_codes(probabilities, draw_race(step=step)) for step in range(10_000)])
    counts = drawn.flatten().bincount(minlength=10).numpy()
    expected = 40_000 * probabilities[0].numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_a_code_of_no_probability_is_never_drawn():
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    drawn = {
        code
        for step in range(500)
        for code in draw_codes(probabilities, draw_race((4, 5), step=step))
    }
    assert {int(code) for code in drawn} == {1, 3}


def test_a_draw_depends_on_its_key_alone():
    assert torch.equal(draw_race(), draw_race())
    assert len(draw_race().unique()) == 40
    for key in ({"seed": 2}, {"variation": 1}, {"step": 6}, {"seed": 2**63 - 1}):
        assert (draw_race(**key) != draw_race()).all()


def test_slots_have_their_own_parameters():
    logits = torch.randn(5, 4, 64, generator=torch.Generator().manual_seed(3))
    parameters = [
        Sampling(1, 0, 9, 0.0, 0, 0.0),
        Sampling(1, 0, 9, 1.0, 5, 0.0),
        Sampling(2, 0, 9, 1.0, 0, 0.9),
        Sampling(3, 0, 2, 0.5, 5, 0.0),
        Sampling(3, 1, 2, 2.0, 5, 0.0),
    ]
    together = sample_codes(logits, parameters)
    assert torch.equal(together[0], logits[0].argmax(-1))
    for slot, one in enumerate(parameters):
        assert torch.equal(together[slot], sample_codes(logits[slot : slot + 1], [one])[0])


def test_guidance():
    conditional, null = torch.randn(2, 1, 4, 8)
    for scale in (0.0, 1.0, 3.0):
        guided = apply_guidance(conditional, null, torch.tensor([scale]))
        torch.testing.assert_close(guided, null + (conditional - null) * scale)
    torch.testing.assert_close(
        apply_guidance(null, null, torch.tensor([7.0])), null, rtol=0, atol=0
    )
