"""Requests that share a forward pass: those of equal shape, and a bad one spoils nobody else's."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from engine.errors import InvalidRequest

Item = TypeVar("Item")
Made = TypeVar("Made")


def serve_in_groups(
    items: Sequence[Item],
    device: torch.device,
    *,
    problem: Callable[[Item], InvalidRequest | None],
    shape: Callable[[Item], Hashable],
    serve: Callable[[Sequence[Item]], Sequence[Made]],
) -> list[Made | InvalidRequest]:
    """Return what `serve` makes of each item, in their order, or the item's `problem`.

    Items of equal `shape` are served together on a GPU. On a CPU they go one by one, which is
    faster there and keeps a result's last bit independent of its neighbours.
    """
    results: dict[int, Made | InvalidRequest] = {}
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        if bad := problem(item):
            results[index] = bad
        else:
            groups[shape(item), index if device.type == "cpu" else None].append(index)
    for members in groups.values():
        made = serve([items[index] for index in members])
        results |= dict(zip(members, made, strict=True))
    return [results[index] for index in range(len(items))]
