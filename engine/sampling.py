"""Draws the next codes from logits, as AudioCraft's `LMModel._sample_next_token` does.

AudioCraft draws from torch's global generator. Here each draw depends only on (seed, variation,
step, codebook), so a request gets the same codes whatever else is in its batch, and a request
that resumes at some step needs no generator state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of one slot at one step."""

    seed: int
    variation: int
    step: int
    """The column that is drawn, counted from the start of the clip."""
    temperature: float
    """Divisor of the logits; 0 means greedy decoding."""
    top_k: int
    top_p: float


def apply_guidance(conditional: Tensor, null: Tensor, scale: Tensor) -> Tensor:
    """Apply guidance with `scale` [slots] to logits [slots, codebooks, cardinality]."""
    return null + (conditional - null) * scale.view(-1, 1, 1)


def filter_probabilities(
    logits: Tensor, temperature: float | Tensor, top_k: int, top_p: float
) -> Tensor:
    """Return the probabilities [..., cardinality] after temperature and top-k or top-p.

    As in `audiocraft/utils/utils.py`, top_p takes precedence over top_k, and top_k keeps every
    code that is as likely as the k-th.
    """
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_p > 0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered > top_p
        probabilities = torch.zeros_like(probabilities).scatter(
            -1, order, ordered.masked_fill(beyond, 0)
        )
    elif 0 < top_k < probabilities.shape[-1]:
        least = probabilities.topk(top_k, dim=-1).values[..., -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def draw_exponentials(sampling: Sampling, shape: Sequence[int]) -> NDArray[np.float32]:
    """Draw Exponential(1) numbers [codebooks, cardinality] from a counter-based generator."""
    key, counter = [sampling.seed, sampling.variation], [0, 0, 0, sampling.step]
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return np.maximum(generator.standard_exponential(shape, np.float32), np.float32(1e-30))


def draw_codes(probabilities: Tensor, race: Tensor) -> Tensor:
    """Draw one code per codebook by the exponential race, as torch's `multinomial` does.

    `race` holds Exponential(1) numbers; each code arrives at the rate of its probability, and
    the first wins. Rounding changes the result only if the first two codes arrive at nearly the
    same time; inverting the cumulative distribution would be less stable.
    """
    return (probabilities / race).argmax(-1)


def sample_codes(logits: Tensor, parameters: Sequence[Sampling]) -> Tensor:
    """Draw the next codes [slots, codebooks] from guided logits, one Sampling for each slot."""
    chosen = logits.argmax(-1)
    groups: dict[tuple[int, float], list[int]] = {}
    for slot, one in enumerate(parameters):
        if one.temperature > 0:
            groups.setdefault((one.top_k, one.top_p), []).append(slot)
    for (top_k, top_p), slots in groups.items():
        races = np.stack([draw_exponentials(parameters[slot], logits.shape[1:]) for slot in slots])
        temperatures = logits.new_tensor([parameters[slot].temperature for slot in slots])
        probabilities = filter_probabilities(
            logits[slots], temperatures.view(-1, 1, 1), top_k, top_p
        )
        chosen[slots] = draw_codes(probabilities, torch.from_numpy(races).to(logits.device))
    return chosen
