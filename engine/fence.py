"""Limits a process to its share of a GPU's memory, and computes how much caches may use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import NoRoom

CONTEXT_GB = 0.6
"""Memory of a process besides tensors: the CUDA context and libraries. An estimate."""
WORKING = 0.1
"""Share of the budget reserved for the intermediate results of a step. An estimate."""


@contextmanager
def within(device: str, share: float) -> Iterator[None]:
    """Limit this process to `share` of the GPU, 0 to 1, and load a model under this limit.

    The limit stays after the block. On a CPU there is none. Raises NoRoom if the model does not
    fit.
    """
    if device != "cuda":
        yield
        return
    if share < 1:
        tensors = (share * _card_gb() - CONTEXT_GB) / _card_gb()
        torch.cuda.set_per_process_memory_fraction(max(tensors, 0.0))
    try:
        yield
    except torch.OutOfMemoryError as error:
        message = f"{describe_share(share)}, and the weights do not fit into it: raise num_gpus"
        raise NoRoom(message) from error


def cache_budget_gb(share: float) -> float:
    """Return the GB left for caches after the weights were loaded; it may be negative."""
    torch.cuda.empty_cache()
    return (1 - WORKING) * share * _card_gb() - CONTEXT_GB - weights_gb()


def weights_gb() -> float:
    """Return the GB of GPU memory that this process uses."""
    return torch.cuda.memory_reserved() / 1e9


def describe_share(share: float) -> str:
    """Return a text that tells the size of a share in GB."""
    return f"{share:g} of a GPU is {share * _card_gb():.1f} GB"


def _card_gb() -> float:
    """Return the memory of the GPU in GB."""
    return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
