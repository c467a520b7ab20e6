"""How often to look at a job, and what comes of it."""

from collections.abc import Callable

from audiocraft_serve.answers import Job
from audiocraft_serve.errors import JobEnded

LEAST_S, MOST_S = 0.2, 5.0


class Polling:
    """Looks at a job until it has ended."""

    def __init__(self, on_progress: Callable[[Job], None] | None) -> None:
        self._on_progress = on_progress

    def wait_s(self, job: Job) -> float | None:
        """Return the seconds until the next look, a tenth of what is left; None: it has finished.

        Raises JobEnded where it has failed or was cancelled.
        """
        if self._on_progress:
            self._on_progress(job)
        if job.status == "finished":
            return None
        if job.status in ("failed", "cancelled"):
            told = job.error or {}
            reason = told.get("message", f"the job was {job.status}")
            code = str(told.get("code", f"job_{job.status}"))
            raise JobEnded(str(reason), status=job.status, code=code)
        left = 10 * LEAST_S if job.eta_seconds is None else job.eta_seconds
        return min(max(left / 10, LEAST_S), MOST_S)
