"""When to ask again, and when to give up."""

import random
from dataclasses import dataclass

from audiocraft_serve.errors import (
    ApiError,
    AudiocraftError,
    NotReachable,
    TimedOut,
    TooManyRequests,
    Unavailable,
)

FIRST_S, LONGEST_S = 0.5, 8.0
"""Seconds to wait before the second try, at most; they double with each, up to the longest."""
LONGEST_ASKED_S = 60.0
"""Who is asked to wait for longer than that is told so, instead of waiting."""
AGAIN = (NotReachable, TooManyRequests, Unavailable)


@dataclass(frozen=True)
class Retries:
    """Tries after the first: of what the server refused for now, and of broken connections.

    All that is asked twice is either the same both times or carries an `Idempotency-Key`.
    """

    most: int

    def wait_s(self, tries: int, error: AudiocraftError) -> float | None:
        """Return the seconds to wait after so many tries, the last of which failed; None: give up.

        What has timed out was waited for long enough.
        """
        if tries > self.most or not isinstance(error, AGAIN) or isinstance(error, TimedOut):
            return None
        asked = (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
        if asked > LONGEST_ASKED_S:
            return None
        own = min(FIRST_S * 2.0 ** (tries - 1), LONGEST_S)
        return asked + own * random.uniform(0.5, 1)  # not all who were refused at once
