"""From logits to codes, each slot by its own parameters, as `LMModel._sample_next_token` does.

AudioCraft draws from torch's global generator. Here each draw is a function of (seed, variation,
step, codebook) alone, so a request gets the same codes whoever shares its batch, and one resumed
at some step needs no generator's state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """One slot's parameters at one step."""

    seed: int
    variation: int
    step: int
    """The absolute frame column that is drawn, counted from the clip's begin."""
    temperature: float
    """0 is greedy."""
    top_k: int
    top_p: float


def guide(conditional: Tensor, null: Tensor, scale: Tensor) -> Tensor:
    """Apply classifier-free guidance to logits [slots, codebooks, cardinality]; scale [slots]."""
    return null + (conditional - null) * scale.view(-1, 1, 1)


def filtered(logits: Tensor, temperature: float | Tensor, top_k: int, top_p: float) -> Tensor:
    """Return the probabilities that are drawn from, [..., cardinality].

    As AudioCraft's: top_p takes precedence over top_k; top_k keeps ties with the k-th
    (`audiocraft/utils/utils.py`).
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


def exponentials(sampling: Sampling, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return Exponential(1) numbers [codebooks, cardinality] of a counter-based generator."""
    key, counter = [sampling.seed, sampling.variation], [0, 0, 0, sampling.step]
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return np.maximum(generator.standard_exponential(shape, np.float32), np.float32(1e-30))


def draw(probabilities: Tensor, race: Tensor) -> Tensor:
    """Draw a code per codebook: the first to arrive, at rates `probabilities`.

    This is how torch's multinomial draws one. Kernels that round otherwise change the result
    only where the two first arrive together; inverting the cumulative distribution would also
    change it near each of its steps.
    """
    return (probabilities / race).argmax(-1)


def sample(logits: Tensor, parameters: Sequence[Sampling]) -> Tensor:
    """Choose the next codes [slots, codebooks] from guided logits."""
    chosen = logits.argmax(-1)
    alike: dict[tuple[int, float], list[int]] = {}
    for slot, one in enumerate(parameters):
        if one.temperature > 0:
            alike.setdefault((one.top_k, one.top_p), []).append(slot)
    for (top_k, top_p), slots in alike.items():
        races = np.stack([exponentials(parameters[slot], logits.shape[1:]) for slot in slots])
        temperatures = logits.new_tensor([parameters[slot].temperature for slot in slots])
        probabilities = filtered(logits[slots], temperatures.view(-1, 1, 1), top_k, top_p)
        chosen[slots] = draw(probabilities, torch.from_numpy(races).to(logits.device))
    return chosen
