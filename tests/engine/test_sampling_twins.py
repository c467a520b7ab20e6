"""Tests that Triton's kernel draws the codes that numba's draws, in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from engine import sampling_cpu

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Guidance scale, temperature, top_p; and top_k.
NUMBERS = [(3.0, 1.0, 0.0), (1.0, 0.7, 0.0), (0.0, 0.0, 0.0), (3.0, 1.3, 0.9), (7.0, 0.01, 0.5)]
NUMBERS += [(3.0, 10.0, 1.0), (3.0, 1.0, 1e-6), (3.0, 1e-40, 0.0), (3.0, 3.0, 0.7)]
TOP_K = [250, 0, 5, 250, 1, 0, 3, 40, 0]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
def test_the_kernel_for_cuda_interpreted_on_the_cpu():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-k", "same_codes"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout


def make_requests(cardinality: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make logits of nine requests, with ties and a number that is not finite, and how to draw."""
    generator = torch.Generator().manual_seed(cardinality)
    logits = 3 * torch.randn(18, 2, cardinality, generator=generator)
    logits[6:10] = (logits[6:10] * 4).round() / 4
    logits[16, 1, cardinality // 2] = torch.inf
    requests = zip(range(9), TOP_K, strict=True)
    integers = [(2 * r, 2 * r + 1, 2**62 + 2**33 * r, r, 1500 + r, top_k) for r, top_k in requests]
    return logits, torch.tensor(integers), torch.tensor(NUMBERS)


@pytest.mark.skipif(not INTERPRETED, reason="needs a process that interprets Triton")
@pytest.mark.parametrize("cardinality", [2048, 400, 64, 3])
def test_kernels_draw_the_same_codes(cardinality: int):
    from engine import sampling_cuda

    given = make_requests(cardinality)
    codes = sampling_cpu.sample_rows(*given)
    assert torch.equal(sampling_cuda.sample_rows(*given), codes)
    assert (codes < 0).nonzero().tolist() == [[7, 0], [7, 1], [8, 1]]
