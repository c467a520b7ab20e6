"""Tests the attention kernels of each device against a plain computation in float64."""

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from engine import kernels_cpu
from engine.page_table import PAGE, count_pages

# Row, position: a prompt's chunk in both rows of a request, a step of others, the first of one.
TOKENS = [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4), (1, 5), (4, 130), (5, 130), (3, 0)]
ROWS, HEADS, POSITIONS, SIZE = 6, 2, 140, 16


def scatter_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Write rows [2, row, head, position, size] to a pool of which all else is NaN.

    Returns the pool and the page table; each row has its own pages, in random order.
    """
    kinds, count, heads, positions, size = rows.shape
    width = count_pages(positions)
    padded = torch.full((kinds, count, heads, width * PAGE, size), torch.nan, dtype=rows.dtype)
    padded[:, :, :, :positions] = rows
    numbers = torch.randperm(count * width + 5)[: count * width]
    pool = torch.full((kinds, count * width + 5, heads, PAGE, size), torch.nan, dtype=rows.dtype)
    pages = padded.view(kinds, count, heads, width, PAGE, size).transpose(2, 3)
    pool[:, numbers] = pages.flatten(1, 2)
    return pool, numbers.view(count, width).to(torch.int32)


def gather_rows(pool: Tensor, table: Tensor, positions: int) -> Tensor:
    """Read the rows of `scatter_rows` from the pool."""
    return pool[:, table.long()].transpose(2, 3).flatten(3, 4)[:, :, :, :positions]


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def kernels() -> ModuleType:
    """The CPU's kernels, or the ones for CUDA in a process that interprets Triton."""
    return importlib.import_module(f"engine.kernels_{'cuda' if INTERPRETED else 'cpu'}")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
def test_those_for_cuda_interpreted_on_the_cpu():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-k", "each_token"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout


def attend_plainly(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Compute one token's attention: query [heads, size], keys and values [heads, past, size]."""
    weights = torch.einsum("hd,hpd->hp", query.double(), keys.double()).softmax(-1)
    return torch.einsum("hp,hpd->hd", weights, values.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_token_attends_to_its_own_past(kernels: ModuleType, dtype: torch.dtype):
    """Places that no token has written are NaN, so none of them is read."""
    torch.manual_seed(0)
    before = torch.randn(2, ROWS, HEADS, POSITIONS, SIZE).to(dtype)
    for row in range(ROWS):
        filled = max((position for other, position in TOKENS if other == row), default=-1)
        before[:, row, :, filled + 1 :] = torch.nan
    projected = torch.randn(len(TOKENS), 3, HEADS, SIZE)
    pool, table = scatter_rows(before)
    out = kernels.attend_past(projected, pool, table, *torch.tensor(TOKENS).t().contiguous())
    past, expected = gather_rows(pool, table, POSITIONS), before.clone()
    for (row, position), (_, key, value) in zip(TOKENS, projected, strict=True):
        expected[0, row, :, position], expected[1, row, :, position] = key, value
    # The interpreter cuts bfloat16 off where devices round.
    rounding = 2**-7 if INTERPRETED and dtype == torch.bfloat16 else 0
    torch.testing.assert_close(past, expected, rtol=rounding, atol=0, equal_nan=True)
    for token, (row, position) in enumerate(TOKENS):
        keys, values = past[:, row, :, : position + 1]
        wanted = attend_plainly(projected[token, 0], keys, values)
        assert (out[token] - wanted).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_token_attends_to_its_slots_text(kernels: ModuleType, dtype: torch.dtype):
    torch.manual_seed(0)
    text = torch.randn(2, ROWS, HEADS, 70, SIZE).to(dtype)
    query = torch.randn(4, HEADS, SIZE)
    rows, lengths = torch.tensor([[0, 2, 3, 1], [5, 70, 64, 1]])
    text[:, 0, :, 5:] = torch.nan
    text[:, 1, :, 1:] = torch.nan
    out = kernels.attend_text(query, *scatter_rows(text), rows, lengths)
    for token, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        keys, values = text[:, row, :, :length]
        assert (out[token] - attend_plainly(query[token], keys, values)).abs().max() < 2e-6


def test_int8_rows():
    rows = torch.tensor([[0.0, 1.0, -2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    unsigned, scales = kernels_cpu.quantise_rows(rows)
    restored = (unsigned.float() - 128) * scales
    assert (restored - rows).abs().max() <= 2.0 / 127 / 2 + 1e-6
    assert unsigned[0, 2] == 1
    assert (unsigned[1] == 128).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_int8_rows_keep_what_is_no_number(wrong: float):
    rows = torch.ones(3, 8)
    rows[1, 5] = wrong
    _, scales = kernels_cpu.quantise_rows(rows)
    assert scales.isnan().flatten().tolist() == [False, True, False]
