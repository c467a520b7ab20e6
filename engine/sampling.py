"""Draws the next codes from logits, as AudioCraft's `LMModel._sample_next_token` does.

AudioCraft draws from torch's global generator. Here each draw depends only on (seed, variation,
step, codebook), so a request gets the same codes whatever else is in its batch, and a request
that resumes at some step needs no generator state. All devices draw the same codes from the same
logits, bit for bit.

A draw is an exponential race, as in torch's `multinomial`: each code has an Exponential(1) number
of its own, made of a random word (`engine.philox`), arrives after that number over its probability,
and the first one wins. Rounding changes the winner only if the first two arrive at nearly the same
time; to invert the cumulative distribution would be less stable. The word of a code is word
code // blocks of the counter (code % blocks, codebook, step, variation), where blocks is a fourth
of the cardinality, rounded up, and the seed is the key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters of one request at one step."""

    seed: int
    variation: int
    step: int
    """The column that is drawn, counted from the start of the clip."""
    temperature: float
    """Divisor of the logits; 0 means greedy decoding."""
    top_k: int
    """Draw from the k likeliest codes, and all that are as likely as the k-th; 0 means all."""
    top_p: float
    """Draw from the likeliest codes until their probabilities exceed this; above 0, it replaces
    `top_k`. Of codes that are equally likely, the lower one comes first."""
    guidance_scale: float


class Kernels(Protocol):
    """The drawing function of one kind of device; see `engine.sampling_cpu`."""

    def sample_rows(self, logits: Tensor, integers: Tensor, numbers: Tensor) -> Tensor:
        """Draw a code for each request and codebook, int64 [requests, codebooks].

        `logits` is float32 [rows, codebooks, cardinality], contiguous. `integers` is int64
        [requests, 6]: conditional row, null row (the same one without guidance), seed, variation,
        step, top_k; `numbers` is float32 [requests, 3]: guidance scale, temperature, top_p.
        The code is -1 where a logit over the temperature is not a finite number.
        """


def sample_codes(
    logits: Tensor,
    samplings: Sequence[Sampling],
    conditional: NDArray[np.int64],
    null: NDArray[np.int64],
) -> Tensor:
    """Draw the next codes, int64 [requests, codebooks], on the logits' device.

    `logits` is float32 [rows, codebooks, cardinality]; `conditional` and `null` are each request's
    rows, which are equal without guidance. The codes of a request are -1 where its logits, over its
    temperature, are not finite numbers.
    """
    integers = [(s.seed, s.variation, s.step, s.top_k) for s in samplings]
    numbers = [(s.guidance_scale, s.temperature, s.top_p) for s in samplings]
    given = np.column_stack([conditional, null, np.array(integers, np.int64)])
    device = logits.device
    kernels = cast(Kernels, import_module(f"engine.sampling_{device.type}"))
    return kernels.sample_rows(
        logits.contiguous(),
        torch.from_numpy(given).to(device),
        torch.tensor(numbers, dtype=torch.float32).to(device),
    )


def warm_up_sampling(codebooks: int, cardinality: int, device: torch.device) -> None:
    """Draw once, so that the kernel is compiled before the first request."""
    sampling = Sampling(0, 0, 0, temperature=1.0, top_k=1, top_p=0.0, guidance_scale=1.0)
    row = np.zeros(1, np.int64)
    sample_codes(torch.zeros(1, codebooks, cardinality, device=device), [sampling], row, row)
