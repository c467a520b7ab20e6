"""Tests that kept codes and probabilities equal AudioCraft's, and that draws follow them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audiocraft.utils import utils
from numpy.typing import NDArray
from scipy.stats import chi2
from torch import Tensor

from engine.sampling import Sampling, sample_codes
from engine.sampling_cpu import exclude_codes, measure_distances
from tests.engine.test_philox import draw_words
from tests.parity import Parity

ONE = Sampling(7, 0, 5, temperature=1.0, top_k=0, top_p=0.0, guidance_scale=1.0)


def get_audiocraft_probabilities(
    logits: Tensor, temperature: float, top_k: int, top_p: float
) -> Tensor:
    """Return the probabilities that AudioCraft draws from, by intercepting its `multinomial`.

    AudioCraft's sort leaves the order of equally likely codes open; here the lower comes first.
    """
    taken: list[Tensor] = []

    def take(probabilities: Tensor, num_samples: int) -> Tensor:
        taken.append(probabilities.clone())
        return torch.zeros(*probabilities.shape[:-1], 1, dtype=torch.long)

    probabilities = torch.softmax(logits / temperature, dim=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "multinomial", take)
        if top_p > 0:
            order = probabilities.sort(dim=-1, descending=True, stable=True).indices
            utils.sample_top_p(probabilities, top_p)
            return torch.zeros_like(probabilities).scatter(-1, order, taken[0])
        if top_k > 0:
            utils.sample_top_k(probabilities, min(top_k, logits.shape[-1]))
            return taken[0]
    return probabilities


def keep_distances(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Return how far codes are below the likeliest one, infinity for those that are excluded."""
    rows = []
    for row in logits.numpy():
        distances = np.empty_like(row)
        divisors = np.float32(1), np.float32(temperature)
        assert measure_distances(row, row, *divisors, distances)
        exclude_codes(distances, top_k, np.float32(top_p))
        rows.append(distances)
    return torch.from_numpy(np.stack(rows))


def make_logits(kind: str, scale: float) -> Tensor:
    """Draw logits [4, 512]; those on a grid have many ties, at every place of the order."""
    logits = scale * torch.randn(4, 512, generator=torch.Generator().manual_seed(1))
    return (logits * 8 / scale).round() * scale / 8 if kind == "grid" else logits


FILTERS = [(0, 0.0), (1, 0.0), (50, 0.0), (511, 0.0), (512, 0.0), (65536, 0.0)]
FILTERS += [(250, 0.5), (0, 0.95), (0, 1e-6), (0, 1.0)]


@pytest.mark.parametrize("kind", ["continuous", "grid"])
@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 3.0])
@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_kept_codes_and_probabilities_are_audiocrafts(
    kind: str, temperature: float, top_k: int, top_p: float, parity: Parity
):
    """The same codes are kept, but for those whose probability is below 1e-30.

    With top-p, the sum that decides may be within a rounding of `top_p`.
    """
    for scale in (0.1, 1.0, 5.0):
        logits = make_logits(kind, scale)
        distances = keep_distances(logits, temperature, top_k, top_p)
        theirs = get_audiocraft_probabilities(logits, temperature, top_k, top_p)
        ours = torch.softmax(-distances.double(), -1)
        what = "probabilities by temperature, top_k, top_p"
        assert parity("language models", what, ours.float(), theirs) < 1e-5
        every = torch.softmax(logits.double() / temperature, -1)
        ordered = every.sort(dim=-1, descending=True, stable=True)
        before = ordered.values.cumsum(-1) - ordered.values
        before = torch.zeros_like(every).scatter(-1, ordered.indices, before)
        decided = (every > 1e-30) & ((before - top_p).abs() > 5e-7) if top_p else every > 1e-30
        assert ((distances < torch.inf) == (theirs > 0))[decided].all()
        assert decided.any(1).all()


def test_top_k_keeps_ties_and_top_p_the_first_of_them():
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0]])
    for top_k, top_p, expected in [(2, 0.0, [0, 1, 2, 3]), (0, 0.6, [0, 1]), (0, 0.7, [0, 1, 2])]:
        kept = keep_distances(logits, 1.0, top_k, top_p) < torch.inf
        assert kept[0].nonzero().flatten().tolist() == expected
        theirs = get_audiocraft_probabilities(logits, 1.0, top_k, top_p)
        assert torch.equal(kept, theirs > 0)


def sample(logits: Tensor, samplings: list[Sampling]) -> NDArray[np.int64]:
    """Draw for requests that all have row 0, and row 1 for guidance."""
    rows = np.zeros(len(samplings), np.int64)
    return sample_codes(logits, samplings, rows, rows + len(logits) - 1).numpy()


DRAWN = [(0, 0.0, 1.0), (12, 0.0, 0.7), (0, 0.8, 1.5), (0, 0.0, 3.0)]


@pytest.mark.parametrize(("top_k", "top_p", "temperature"), DRAWN)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_draws_follow_audiocrafts_probabilities(
    top_k: int, top_p: float, temperature: float, guidance: float
):
    """Chi-square of 20,000 draws is below its 99.9 % quantile, for each of two codebooks."""
    logits = torch.randn(2, 2, 40, generator=torch.Generator().manual_seed(2))
    how = replace(ONE, top_k=top_k, top_p=top_p, temperature=temperature, guidance_scale=guidance)
    drawn = sample(logits, [replace(how, step=step) for step in range(20_000)])
    conditional, null = logits
    guided = null + (conditional - null) * guidance
    expected = get_audiocraft_probabilities(guided, temperature, top_k, top_p).double().numpy()
    for book, probabilities in enumerate(expected):
        counts = np.bincount(drawn[:, book], minlength=40)
        assert not counts[probabilities == 0].any()
        kept = 20_000 * probabilities[probabilities > 0]
        distance = ((counts[probabilities > 0] - kept) ** 2 / kept).sum()
        assert distance < chi2.ppf(0.999, len(kept) - 1)


@pytest.mark.parametrize("other", [{"step": 6}, {"variation": 1}, {"seed": 8}, {"seed": 7 + 2**32}])
def test_draws_are_independent(other: dict[str, int]):
    """Pairs of draws by neighbouring keys, and by codebooks, are all equally frequent."""
    logits = torch.zeros(1, 2, 8)
    keys = [replace(ONE, step=10 * step) for step in range(10_000)]
    moved = [replace(key, **({"step": key.step + 1} if "step" in other else other)) for key in keys]
    first, second = sample(logits, keys), sample(logits, moved)
    for one, two in [(first[:, 0], second[:, 0]), (first[:, 0], first[:, 1])]:
        counts = np.bincount(8 * one + two, minlength=64)
        assert ((counts - 156.25) ** 2 / 156.25).sum() < chi2.ppf(0.999, 63)


def draw_plainly(logits: NDArray[np.float64], key: Sampling, book: int) -> int:
    """Draw a code as `engine.sampling` says, in float64."""
    blocks = -(-len(logits) // 4)
    seed = [key.seed & 0xFFFFFFFF, key.seed >> 32]
    words = [draw_words([block, book, key.step, key.variation], seed) for block in range(blocks)]
    u = (np.array(words).T.ravel()[: len(logits)] // 2 + 0.5) / 2**31
    return int(np.argmin(-np.log1p(-u) / np.exp(logits)))


@pytest.mark.parametrize("cardinality", [1, 2, 3, 50, 257])
def test_draws_are_those_that_are_documented(cardinality: int):
    logits = torch.randn(1, 4, cardinality, generator=torch.Generator().manual_seed(4))
    keys = [replace(ONE, step=step, seed=2**62 + step, variation=step % 3) for step in range(50)]
    rows = logits[0].double().numpy()
    for key, codes in zip(keys, sample(logits, keys).tolist(), strict=True):
        assert codes == [draw_plainly(row, key, book) for book, row in enumerate(rows)]


MIXED = [
    replace(ONE, temperature=0.0, guidance_scale=3.0),
    replace(ONE, top_k=5),
    replace(ONE, seed=2, top_p=0.9, guidance_scale=0.0),
    replace(ONE, seed=3, step=2, temperature=0.5, top_k=5),
    replace(ONE, seed=3, step=2, temperature=2.0, top_k=5, variation=1, guidance_scale=7.0),
]


def test_a_request_gets_the_same_codes_in_any_company():
    logits = torch.randn(10, 4, 64, generator=torch.Generator().manual_seed(3))
    rows = np.arange(0, 10, 2)
    together = sample_codes(logits, MIXED, rows, rows + 1)
    for index, one in enumerate(MIXED):
        alone = sample(logits[2 * index : 2 * index + 2], [one])
        assert torch.equal(together[index], torch.from_numpy(alone[0]))
    back = sample_codes(logits, MIXED[::-1], rows[::-1].copy(), rows[::-1] + 1)
    assert torch.equal(back.flip(0), together)


def test_greedy_codes_are_the_likeliest_after_guidance():
    logits = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(3))
    for scale in (0.0, 1.0, 3.0):
        guided = logits[1] + (logits[0] - logits[1]) * scale
        drawn = sample(logits, [replace(ONE, temperature=0.0, guidance_scale=scale)])
        assert drawn[0].tolist() == guided.argmax(-1).tolist()
    assert sample(torch.zeros(1, 4, 64), [replace(ONE, temperature=0.0)]).tolist() == [[0] * 4]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_are_not_finite_spoil_one_request_only(wrong: float, temperature: float):
    logits = torch.randn(6, 2, 64, generator=torch.Generator().manual_seed(3))
    samplings = [replace(ONE, temperature=temperature, guidance_scale=3.0)] * 3
    rows = np.arange(0, 6, 2)
    expected = sample_codes(logits, samplings, rows, rows + 1)
    for row in (2, 3):
        spoilt = logits.clone()
        spoilt[row, 1, 33] = wrong
        drawn = sample_codes(spoilt, samplings, rows, rows + 1)
        assert (drawn < 0).tolist() == [[False, False], [False, True], [False, False]]
        assert torch.equal(drawn[[0, 2]], expected[[0, 2]])


def test_a_temperature_that_makes_logits_infinite_draws_nothing():
    assert sample(torch.randn(1, 1, 64), [replace(ONE, temperature=1e-40)]).tolist() == [[-1]]


def test_far_logits_are_drawn_from_as_they_are():
    """Distances beyond a float32's range count as impossible, and ones near it do no harm."""
    logits = torch.full((1, 1, 64), -3e38)
    logits[0, 0, [7, 9]] = torch.tensor([3e38, 3e38])
    drawn = sample(logits, [replace(ONE, step=step) for step in range(100)])
    assert set(drawn.flatten().tolist()) == {7, 9}
