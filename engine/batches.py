"""Groups requests of equal shape into shared forward passes, and keeps invalid ones apart."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from engine.errors import InvalidRequest

Item = TypeVar("Item")
Result = TypeVar("Result")


def serve_in_groups(
    items: Sequence[Item],
    device: torch.device,
    *,
    reject: Callable[[Item], InvalidRequest | None],
    shape: Callable[[Item], Hashable],
    serve: Callable[[Sequence[Item]], Sequence[Result]],
) -> list[Result | InvalidRequest]:
    """Return the result of `serve` for each item, in order, or the error that `reject` returns.

    On a GPU, items of equal `shape` are served together. On a CPU they are served one by one,
    which is faster there and keeps the last bit of a result independent of other items.
    """
    results: dict[int, Result | InvalidRequest] = {}
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        if error := reject(item):
            results[index] = error
        else:
            groups[shape(item), index if device.type == "cpu" else None].append(index)
    for members in groups.values():
        made = serve([items[index] for index in members])
        results |= dict(zip(members, made, strict=True))
    return [results[index] for index in range(len(items))]
