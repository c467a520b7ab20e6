"""Tests that a row's product is independent of other rows, and near float32 in each precision."""

import pytest
import torch

import engine.precision as precision_module
from benchmarks.shapes import build_language_model
from engine.cache import Cache, Segment
from engine.decoder import Decoder
from engine.errors import UnsupportedPrecision
from engine.precision import cpu_multiplies_in, make_linear
from tests.engine.cpu import BFLOAT16

# Relative RMS distance of logits from float32's at the musicgen-small shape, random weights.
BOUNDS = {"bfloat16": 0.06, "int8": 0.09}


MEASURED = (
    torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cpu._is_amx_tile_supported()
)


@pytest.mark.skipif(not MEASURED, reason="the kernels' bits were measured on AVX-512 without AMX")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("outputs", "inputs"), [(3072, 1024), (1024, 4096), (192, 64), (64, 256)])
def test_a_row_has_the_same_bits_in_any_company(precision: str, outputs: int, inputs: int):
    torch.manual_seed(0)
    linear = make_linear(torch.randn(outputs, inputs) / inputs**0.5, precision)
    rows = torch.randn(70, inputs)
    expected = linear(rows)
    for number in (*range(1, 18), 24, 31, 32, 33, 64):
        assert torch.equal(linear(rows[:number]), expected[:number]), number
    assert torch.equal(linear(rows.flip(0)).flip(0), expected)


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
        cache = Cache(lm, slots=1, positions=32, text_tokens=32, precision=precision)
        decoder = Decoder(lm, cache, precision)
        with torch.inference_mode():
            decoder.set_text(0, text)
            inputs = decoder.embed_columns(columns).repeat(2, 1)
            logits[precision] = decoder.forward(inputs, [Segment(0, 2, 0, 24)])
    for precision in able:
        error = logits[precision] - logits["float32"]
        distance = (error.norm() / logits["float32"].norm()).item()
        assert 0 < distance < BOUNDS[precision], (precision, distance)
