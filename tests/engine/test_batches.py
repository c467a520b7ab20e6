"""Tests the grouping of requests by shape: order, errors and shared passes."""

from collections.abc import Sequence

import pytest
import torch

from engine.batches import serve_in_groups
from engine.errors import InvalidRequest


@pytest.mark.parametrize(
    ("device", "passes"),
    [("cpu", [["a"], ["bb"], ["c"], ["dd"]]), ("cuda", [["a", "c"], ["bb", "dd"]])],
)
def test_equal_shapes_share_a_pass_only_on_a_gpu(device: str, passes: list[list[str]]):
    served: list[list[str]] = []

    def serve(items: Sequence[str]) -> list[str]:
        served.append(list(items))
        return [item.upper() for item in items]

    results = serve_in_groups(
        ["a", "bb", "", "c", "dd"],
        torch.device(device),
        reject=lambda item: None if item else InvalidRequest("nothing to serve", "item"),
        shape=len,
        serve=serve,
    )
    assert served == passes
    assert [r for r in results if isinstance(r, str)] == ["A", "BB", "C", "DD"]
    assert isinstance(results[2], InvalidRequest)
