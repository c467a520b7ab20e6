"""Decides how long to wait before a job's status is read again."""

from collections.abc import Callable

from audiocraft_serve.answers import Job
from audiocraft_serve.errors import JobEnded

SHORTEST_S, LONGEST_S = 0.2, 5.0


class Polling:
    """Watches a job's status until the job has ended."""

    def __init__(self, on_progress: Callable[[Job], None] | None) -> None:
        self._on_progress = on_progress

    def wait_s(self, job: Job) -> float | None:
        """Return the seconds until the next status request; None: the job has finished.

        It is a tenth of the remaining time, from 0.2 to 5 s. Raises JobEnded if the job failed or
        was cancelled.
        """
        if self._on_progress:
            self._on_progress(job)
        if job.status == "finished":
            return None
        if job.status in ("failed", "cancelled"):
            error = job.error or {}
            reason = error.get("message", f"the job was {job.status}")
            code = str(error.get("code", f"job_{job.status}"))
            raise JobEnded(str(reason), status=job.status, code=code)
        remaining_s = 10 * SHORTEST_S if job.eta_seconds is None else job.eta_seconds
        return min(max(remaining_s / 10, SHORTEST_S), LONGEST_S)
