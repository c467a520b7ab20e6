"""Builds the decoder's matrix products in each precision.

The result of a row does not depend on other rows, not even in its rounding. On CPUs with AVX-512
(measured there), oneDNN's packed products give a row the same bits for any number of rows from two
on, so a single row is computed twice. int8 products accumulate in integers, with a scale for each
row and each output. (torch's `linear` and `mm` choose their kernels, and thus their rounding, by
the number of rows.)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import UnsupportedPrecision
from engine.kernels_cpu import quantise_rows

Linear = Callable[[Tensor], Tensor]
"""A function from float32 [rows, in] to [rows, out], float32 on CPU, the weights' dtype on CUDA."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
BLOCK = 1024
"""Outputs per packed block; oneDNN's float32 kernels are much slower for wider blocks."""
ROWS_HINT = 16
"""The number of rows for which oneDNN packs the weights."""
LARGEST_INT8 = 127 if torch.cpu._is_vnni_supported() else 63
"""Largest int8 weight. A CPU without VNNI adds two products in 16 bits, which could overflow."""


def cpu_multiplies_in(precision: str) -> bool:
    """Return whether oneDNN has packed products for `precision` on this CPU."""
    kernels = torch.ops.mkldnn
    able: dict[str, Callable[[], bool]] = {
        "bfloat16": kernels._is_mkldnn_bf16_supported,
        "float16": kernels._is_mkldnn_fp16_supported,
    }
    return precision not in able or able[precision]()


def make_linear(weight: Tensor, precision: str) -> Linear:
    """Return a function that multiplies rows by the transpose of `weight` [out, in].

    Raises UnsupportedPrecision if the CPU has no such products; emulated, they would be slower
    than float32.
    """
    assert precision in PRECISIONS
    on_cpu = weight.device.type == "cpu"
    if on_cpu and not cpu_multiplies_in(precision):
        raise UnsupportedPrecision(
            f"this CPU cannot multiply in {precision} (bfloat16 needs AVX-512): "
            "use dtype float32 or int8"
        )
    weight = weight.detach()
    if precision == "int8":
        return _make_int8_linear(weight)
    dtype: torch.dtype = getattr(torch, precision)
    return _make_packed_linear(weight, dtype) if on_cpu else _make_plain_linear(weight, dtype)


def _make_plain_linear(weight: Tensor, dtype: torch.dtype) -> Linear:
    weight = weight.to(dtype, copy=True)  # a view would keep the whole source tensor in memory
    return lambda rows: functional.linear(rows.to(dtype), weight)


def _make_packed_linear(weight: Tensor, dtype: torch.dtype) -> Linear:
    pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    blocks = torch.split(weight.to(dtype), BLOCK if dtype == torch.float32 else len(weight))
    packed = [pack(block.contiguous(), ROWS_HINT) for block in blocks]

    def multiply_rows(rows: Tensor) -> Tensor:
        several = rows.to(dtype) if len(rows) > 1 else rows.to(dtype).expand(2, -1).contiguous()
        parts = [product(several, block, None, "none", [], "") for block in packed]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        kept: Tensor = joined[: len(rows)]
        return kept.float()

    return multiply_rows


def _make_int8_linear(weight: Tensor) -> Linear:
    """Return the product in int8, with a scale for each output and each row."""
    scales = weight.abs().amax(1).clamp(min=1e-12) / LARGEST_INT8
    codes = (weight / scales[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    product = torch.ops.onednn.qlinear_pointwise

    def multiply_rows(rows: Tensor) -> Tensor:
        # oneDNN's fast kernels need unsigned rows, with zero point 128.
        unsigned, row_scales = quantise_rows(rows)
        whole: Tensor = product(
            unsigned, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return whole.mul_(row_scales)

    return multiply_rows
