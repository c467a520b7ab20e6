"""How many live sessions one ingress has, and whose."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from graph.errors import ApiError
from graph.metrics import Metrics
from graph.settings import Limits


class Sessions:
    """One ingress replica's."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.open = Counter[str]()
        """By the name of their key."""

    @contextmanager
    def place(self, key: str, limits: Limits) -> Iterator[None]:
        """Hold a session's place. Raises ApiError 429 where there is none."""
        for what, have, most in (
            ("this key has", self.open[key], limits.max_live_per_key),
            ("there are", self.open.total(), limits.max_live),
        ):
            if have >= most:
                message = f"{what} {have} live sessions, allowed are {most}; wait for one to end"
                raise ApiError(429, "too_many_sessions", message)
        self._count(key, 1)
        try:
            yield
        finally:
            self._count(key, -1)

    def _count(self, key: str, more: int) -> None:
        self.open[key] += more
        if not self.open[key]:
            del self.open[key]
        self._metrics.set_live_sessions(self.open.total())
