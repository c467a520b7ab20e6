"""Tests that a row's product is independent of other rows, and near float32 in each precision."""

import os
import subprocess
import sys

import pytest
import torch

import engine.precision as precision_module
from benchmarks.shapes import build_language_model
from engine.cache import Cache, Segment
from engine.decoder import Decoder
from engine.errors import UnsupportedPrecision
from engine.precision import (
    cpu_multiplies_in,
    find_row_counts,
    fix_row_counts,
    make_linear,
)
from tests.engine.cpu import BFLOAT16

# Relative RMS distance of logits from float32's at the musicgen-small shape, random weights.
BOUNDS = {"bfloat16": 0.06, "int8": 0.09}


# oneDNN and torch as on a CPU that has AVX2 only.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
LIMITED = AVX2.items() <= os.environ.items()
SHAPES = [(3072, 1024), (1024, 4096), (4608, 1536), (192, 64), (64, 256)]


@pytest.mark.parametrize("precision", ["float32", BFLOAT16, "int8"])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_row_has_the_same_bits_in_any_company(precision: str, outputs: int, inputs: int):
    torch.manual_seed(0)
    linear = make_linear(torch.randn(outputs, inputs) / inputs**0.5, precision)
    rows = torch.randn(140, inputs)
    expected = linear(rows)
    for number in (*range(1, 20), 24, 31, 32, 33, 64, 65, 96, 101, 128):
        assert torch.equal(linear(rows[:number]), expected[:number]), number
        assert torch.equal(linear(rows[3 : 3 + number]), expected[3 : 3 + number]), number
    assert torch.equal(linear(rows.flip(0)).flip(0), expected)


@pytest.mark.slow
@pytest.mark.skipif(LIMITED, reason="this is the process that it starts")
@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_a_row_has_the_same_bits_on_a_cpu_with_avx2(threads: str):
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-k", "any_company"]
    environment = os.environ | AVX2 | {"OMP_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "10 passed, 5 skipped" in done.stdout, done.stdout


def test_counts_whose_rows_differ_are_not_used():
    """Six rows at once, as on AVX2: those that are over are summed in another order."""

    def product(rows: torch.Tensor) -> torch.Tensor:
        over = len(rows) % 6
        changed = rows.clone()
        if 0 < over < 4:
            changed[-over:] *= 1 + over / 8
        return changed

    counts = find_row_counts(product, torch.randn(1, 4), 16)
    assert counts == [4, 10, 16, 22, 28, 34, 48, 64]
    rows = torch.randn(200, 4)
    for number in (1, 2, 3, 5, 63, 64, 65, 130, 200):
        assert torch.equal(fix_row_counts(product, counts)(rows[:number]), rows[:number])


def test_the_counts_that_suit_typical_steps_are_used():
    """Neither one row at a time, nor 64 for one request, unless reading the weights is all."""
    row = torch.zeros(1, 4)
    sets = {1: 0, 2: 1, 4: 1, 10: 1, 16: 2, 22: 2, 28: 2, 32: 2, 34: 3, 48: 3, 64: 3}
    assert find_row_counts(lambda rows: rows + sets[len(rows)], row, 4) == [2, 4, 10]
    assert find_row_counts(lambda rows: rows + sets[len(rows)], row, 64) == [16, 22, 28, 32]
    assert find_row_counts(lambda rows: rows + len(rows), row, 1000) == [32]


@pytest.mark.parametrize("precision", ["float32", BFLOAT16, "int8"])
def test_products_are_near(precision: str):
    bound = {"float32": 1e-6, **BOUNDS}[precision]
    torch.manual_seed(0)
    weight, rows = torch.randn(256, 1024) / 32, torch.randn(8, 1024)
    expected = rows @ weight.t()
    error = make_linear(weight, precision)(rows) - expected
    assert error.norm() / expected.norm() < bound


def test_what_the_cpu_cannot_multiply_in_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision_module, "cpu_multiplies_in", lambda precision: False)
    with pytest.raises(UnsupportedPrecision, match="use dtype float32 or int8"):
        make_linear(torch.ones(2, 2), "bfloat16")


@pytest.mark.slow
def test_logits_at_the_real_shape_are_near():
    lm = build_language_model("small")
    text = torch.randn(20, lm.dim)
    columns = torch.randint(0, lm.card, (24, 4))
    logits = {}
    able = [precision for precision in BOUNDS if cpu_multiplies_in(precision)]
    for precision in ("float32", *able):
        cache = Cache(lm, slots=1, pages=6, positions=32, precision=precision)
        for row, positions in enumerate((24, 24, 20)):
            cache.pages.extend_row(0, row, positions)
        decoder = Decoder(lm, cache, precision)
        with torch.inference_mode():
            decoder.set_text(0, text)
            inputs = decoder.embed_columns(columns).repeat(2, 1)
            logits[precision] = decoder.forward(inputs, [Segment(0, 2, 0, 24)])
    for precision in able:
        error = logits[precision] - logits["float32"]
        distance = (error.norm() / logits["float32"].norm()).item()
        assert 0 < distance < BOUNDS[precision], (precision, distance)
