"""Counts the bytes that the requests of one ingress replica hold, and refuses too many."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from graph.errors import ApiError

RETRY_S = 5


class HeldBytes:
    """The bytes that all requests of one ingress replica hold, or will hold until they end."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self.held = 0

    def check_size(self, size: int) -> None:
        """Raise ApiError 413 where one request would need more than all may hold."""
        if size > self._most():
            need, most = (f"{number / 1e6:,.0f} MB" for number in (size, self._most()))
            message = (
                f"the request needs {need} of memory; allowed: {most}; ask for fewer or shorter "
                "clips, a lower sample rate, or fewer bits"
            )
            raise ApiError(413, "answer_too_large", message)

    @contextmanager
    def hold_bytes(self, size: int) -> Iterator[None]:
        """Count bytes as held during the block.

        Raises ApiError 413 where they are too many, and 429 where others hold them.
        """
        self.check_size(size)
        if self.held + size > self._most():
            message = f"the requests in work need all memory; try again in {RETRY_S} s"
            headers = {"retry-after": str(RETRY_S)}
            raise ApiError(429, "overloaded", message, headers=headers)
        self.held += size
        try:
            yield
        finally:
            self.held -= size
