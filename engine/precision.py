"""The decoder's matrix products in each precision. Every row's result depends on that row alone."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
"""[rows, in] float32 to [rows, out] float32."""


def make_linear(weight: Tensor, precision: str) -> Linear:
    """Return the product with `weight` [out, in], transposed, in `precision`."""
    dtype: torch.dtype = getattr(torch, precision)
    return _single(weight.detach()) if dtype == torch.float32 else _half(weight.detach(), dtype)


def _single(weight: Tensor) -> Linear:
    weight = weight.float().contiguous()

    def product(rows: Tensor) -> Tensor:
        return torch.mm(weight, rows.t()).t()

    def product_of_one(rows: Tensor) -> Tensor:
        return functional.linear(rows, weight)

    # With the weights as the left factor, few rows cost no more than reading the weights once.
    return lambda rows: product(rows) if len(rows) > 1 else product_of_one(rows)


def _half(weight: Tensor, dtype: torch.dtype) -> Linear:
    weight = weight.to(dtype).contiguous()
    return lambda rows: functional.linear(rows.to(dtype), weight).float()
