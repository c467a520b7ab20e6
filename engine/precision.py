"""Builds the decoder's matrix products in each precision.

On a CPU the result of a row does not depend on other rows, not even in its rounding. int8 products
accumulate in integers, with a scale for each row and each output. Other products are oneDNN's: the
order of summation depends on the number of rows, by rules that each kind of CPU, shape and number
of threads has of its own. So it is measured for which numbers of rows the bits are equal, and only
those are used: rows are padded, or split. On a GPU the rounding may depend on the number of rows.
"""

from collections import defaultdict
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
ROW_COUNTS = (1, 2, 4, 10, 16, 22, 28, 32, 34, 48, 64)
"""The numbers of rows that are tried. AVX2's kernels take six at once, and leave as many over of
most of these."""
TYPICAL_ROWS = (2, 8, 32)
"""The rows of 1, 4 and 16 guided requests, by which sets of counts are compared."""
ROWS_PER_READING = {torch.float32: 20, torch.bfloat16: 64, torch.float16: 64}
"""The number of rows whose products take as long as reading the weights; an estimate."""
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
    shape = (*weight.shape, dtype, torch.get_num_threads())
    if shape not in _row_counts:
        probe, row = build_probe(*weight.shape)
        _row_counts[shape] = find_row_counts(
            _pack_product(probe, dtype), row, ROWS_PER_READING[dtype]
        )
    return fix_row_counts(_pack_product(weight, dtype), _row_counts[shape])


def _pack_product(weight: Tensor, dtype: torch.dtype) -> Linear:
    pack, product = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    blocks = torch.split(weight.to(dtype), BLOCK if dtype == torch.float32 else len(weight))
    packed = [pack(block.contiguous(), ROWS_HINT) for block in blocks]

    def multiply_rows(rows: Tensor) -> Tensor:
        parts = [product(rows.to(dtype), block, None, "none", [], "") for block in packed]
        joined: Tensor = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return joined.float()

    return multiply_rows


_row_counts: dict[tuple[object, ...], list[int]] = {}
"""The result of `find_row_counts` for each shape, dtype and number of threads."""


def build_probe(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Build weights [outputs, inputs] and a row whose product shows the order of summation.

    Half of the terms are large and cancel in pairs, so that in another order other bits of the
    small ones are lost, enough to be seen in a result that is rounded to bfloat16.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator)
    row = torch.randn(1, inputs, generator=generator)
    places = torch.randperm(inputs, generator=generator)
    some, others = places[: inputs // 4], places[inputs // 4 : inputs // 4 * 2]
    row[:, some] *= 2.0**16
    weight[:, others], row[:, others] = weight[:, some], -row[:, some]
    return weight, row


def find_row_counts(product: Linear, row: Tensor, reading: int) -> list[int]:
    """Find the numbers of rows for which `product` gives each row the same bits.

    It multiplies copies of one row [1, inputs]: where two results differ, the order of summation
    does. Of several sets, it returns the one by which typical steps are fastest, if reading the
    weights takes as long as `reading` rows.
    """
    sets: dict[bytes, list[int]] = defaultdict(list)
    for count in ROW_COUNTS:
        results = product(row.repeat(count, 1))
        if (results == results[0]).all():
            sets[results[0].numpy().tobytes()].append(count)
    assert sets, "no number of rows gives each of them the same bits"

    def rate(counts: list[int]) -> int:
        splits = [_split_rows(counts, rows) for rows in TYPICAL_ROWS]
        return sum(sum(split) + reading * len(split) for split in splits)

    return min(sets.values(), key=rate)


def _split_rows(counts: list[int], rows: int) -> list[int]:
    """Split a number of rows into the counts that are used; the last may have rows to spare."""
    whole, rest = divmod(rows, counts[-1])
    return [counts[-1]] * whole + ([min(c for c in counts if c >= rest)] if rest else [])


def fix_row_counts(product: Linear, counts: list[int]) -> Linear:
    """Return a product of any number of rows that calls `product` with these counts only."""

    def multiply_rows(rows: Tensor) -> Tensor:
        splits = _split_rows(counts, len(rows))
        if splits == [len(rows)]:
            return product(rows)
        padded = functional.pad(rows, (0, 0, 0, sum(splits) - len(rows)))
        parts = [product(part) for part in torch.split(padded, splits)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[: len(rows)]

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
