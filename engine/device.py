"""Finds out whether this process can still use its GPU."""

import torch

from engine.errors import EngineFailed


def check_device() -> None:
    """Raise EngineFailed if the GPU refuses all further work of this process.

    CUDA does so after an illegal access or a failed assertion in a kernel: each later call returns
    the same error.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            message = f"the GPU refuses all further work of this process: {error}"
            raise EngineFailed(message) from error
