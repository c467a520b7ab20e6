"""Decides whether a failed request is sent again, and after how many seconds."""

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
"""Upper bound of the wait before the second try, in seconds; it doubles per try up to LONGEST_S."""
LONGEST_RETRY_AFTER_S = 60.0
"""If the server asks for a longer wait than this, the error is raised at once."""
RETRIED = (NotReachable, TooManyRequests, Unavailable)


@dataclass(frozen=True)
class Retries:
    """Retries broken connections and requests that the server refused for the moment (429, 503).

    This is safe: each request either changes nothing on the server or has an `Idempotency-Key`.
    """

    max_retries: int

    def wait_s(self, tries: int, error: AudiocraftError) -> float | None:
        """Return the seconds to wait before the next try; None: raise the error.

        `tries` counts the tries so far, and `error` ended the last of them. A request that timed
        out is not retried.
        """
        if (
            tries > self.max_retries
            or not isinstance(error, RETRIED)
            or isinstance(error, TimedOut)
        ):
            return None
        retry_after = (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
        if retry_after > LONGEST_RETRY_AFTER_S:
            return None
        backoff = min(FIRST_S * 2.0 ** (tries - 1), LONGEST_S)
        return retry_after + backoff * random.uniform(0.5, 1)  # clients must not return together
