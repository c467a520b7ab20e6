"""The decoder's matrix products in each precision.

No row enters another's arithmetic. Its rounding is its own too: on CPUs with AVX-512 (where it was
measured), oneDNN's packed products give a row the same bits among any number of rows from two on,
so a single row is given a companion; int8 products accumulate in integers, with a scale for each
row and each output. (Plain `linear` and `mm` choose their kernels, and so their rounding, by the
number of rows.)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import UnsupportedPrecision
from engine.kernels_cpu import quantise

Linear = Callable[[Tensor], Tensor]
"""[rows, in] float32 to [rows, out]: float32 again on the CPU, on CUDA in the weights' numbers."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
BLOCK = 1024
"""Outputs in one packed block: oneDNN's float32 kernels slow down by far on wider ones."""
ROWS_HINT = 16
LARGEST_INT8 = 127 if torch.cpu._is_vnni_supported() else 63
"""Of int8 weights. Without VNNI a CPU adds two products in 16 bits, which more would overflow."""


def cpu_multiplies_in(precision: str) -> bool:
    """Return whether oneDNN has packed products in `precision` on this CPU."""
    kernels = torch.ops.mkldnn
    able: dict[str, Callable[[], bool]] = {
        "bfloat16": kernels._is_mkldnn_bf16_supported,
        "float16": kernels._is_mkldnn_fp16_supported,
    }
    return precision not in able or able[precision]()


def make_linear(weight: Tensor, precision: str) -> Linear:
    """Return the product with `weight` [out, in], transposed, in `precision`.

    Raises UnsupportedPrecision where a CPU has no such products; in emulation they would be slower
    than float32's.
    """
    assert precision in PRECISIONS
    on_cpu = weight.device.type == "cpu"
    if on_cpu and not cpu_multiplies_in(precision):
        raise UnsupportedPrecision(
            f"this CPU cannot multiply in {precision} (bfloat16 wants AVX-512): "
            "use dtype float32 or int8"
        )
    weight = weight.detach()
    if precision == "int8":
        return _int8(weight)
    dtype: torch.dtype = getattr(torch, precision)
    return _packed(weight, dtype) if on_cpu else _plain(weight, dtype)


def _plain(weight: Tensor, dtype: torch.dtype) -> Linear:
    weight = weight.to(dtype, copy=True)  # a view would keep the whole of what it is a part of
    return lambda rows: functional.linear(rows.to(dtype), weight)


def _packed(weight: Tensor, dtype: torch.dtype) -> Linear:
    pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    blocks = torch.split(weight.to(dtype), BLOCK if dtype == torch.float32 else len(weight))
    packed = [pack(block.contiguous(), ROWS_HINT) for block in blocks]

    def linear(rows: Tensor) -> Tensor:
        several = rows.to(dtype) if len(rows) > 1 else rows.to(dtype).expand(2, -1).contiguous()
        parts = [product(several, block, None, "none", [], "") for block in packed]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        kept: Tensor = joined[: len(rows)]
        return kept.float()

    return linear


def _int8(weight: Tensor) -> Linear:
    """Weights with a scale an output, activations with a scale a row."""
    scales = weight.abs().amax(1).clamp(min=1e-12) / LARGEST_INT8
    codes = (weight / scales[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    product = torch.ops.onednn.qlinear_pointwise

    def linear(rows: Tensor) -> Tensor:
        # Unsigned with the zero at 128, as oneDNN's fast kernels want them.
        unsigned, row_scales = quantise(rows)
        whole: Tensor = product(
            unsigned, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return whole.mul_(row_scales)

    return linear
