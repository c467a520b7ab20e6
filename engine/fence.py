"""A process's share of a GPU: PyTorch takes no more of it, and caches get what models leave."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.errors import NoRoom

CONTEXT_GB = 0.6
"""What a process takes beside PyTorch's tensors: CUDA's context and its libraries. Not measured."""
WORKING = 0.1
"""Of a share, kept for what a step computes. Not measured."""


@contextmanager
def within(device: str, share: float) -> Iterator[None]:
    """Put the fence up, for good, and load a model inside it. Raises NoRoom where it does not fit.

    `share` is of the card's memory, 0 to 1; there is no fence on a CPU.
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
        message = f"{described(share)}, and the weights do not fit into it: raise num_gpus"
        raise NoRoom(message) from error


def left_gb(share: float) -> float:
    """Return what is left for caches, in GB, once the weights are there; perhaps less than none."""
    torch.cuda.empty_cache()
    return (1 - WORKING) * share * _card_gb() - CONTEXT_GB - weights_gb()


def weights_gb() -> float:
    """Return what this process has on the card."""
    return torch.cuda.memory_reserved() / 1e9


def described(share: float) -> str:
    """Say how much a share is."""
    return f"{share:g} of a GPU is {share * _card_gb():.1f} GB"


def _card_gb() -> float:
    return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
