"""Counts requests for Prometheus; Ray adds deployment, replica and the prefix `ray_`."""

import time

from ray.serve.metrics import Counter, Gauge, Histogram

SECONDS = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0]
LATE = [0.001, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]
FACTORS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
PREFIX = "audiocraft_"


def _build_counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(PREFIX + name, description, tag_keys=tags)


def _build_histogram(name: str, description: str, boundaries: list[float], *tags: str) -> Histogram:
    return Histogram(PREFIX + name, description, boundaries, tag_keys=tags)


class Metrics:
    """The metrics of one ingress replica."""

    def __init__(self) -> None:
        self._requests = _build_counter(
            "requests",
            "Requests answered, by route, model and outcome: a status, or `cut`.",
            "path",
            "model",
            "outcome",
        )
        self._request_seconds = _build_histogram(
            "request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            SECONDS,
            "path",
            "model",
        )
        self._first_audio = _build_histogram(
            "first_audio_seconds",
            "Seconds from a request's arrival to its first audio, whole clips included.",
            SECONDS,
            "model",
        )
        self._audio_seconds = _build_counter("audio_seconds", "Seconds of audio made.", "model")
        self._real_time_factor = _build_histogram(
            "real_time_factor",
            "Seconds that a clip took by seconds of its audio.",
            FACTORS,
            "model",
        )
        self._late = _build_histogram(
            "late_seconds",
            "Seconds that a player would have waited for a part of a stream; 0 means in time.",
            LATE,
            "model",
        )
        self._row_seconds = _build_counter(
            "row_seconds",
            "Price of requests, by verdict: `admitted`, or the reason of the refusal.",
            "model",
            "verdict",
        )
        self._cache = _build_counter(
            "cache",
            "Repeatable requests: `hit`, `joined` one that was being made, or `miss`.",
            "model",
            "found",
        )
        self._jobs = _build_counter("jobs", "Jobs that have ended, by status.", "model", "status")
        self._jobs_waiting = Gauge(
            PREFIX + "jobs_waiting", "Jobs that nobody works on, as every ingress sees them."
        )
        self._live = Gauge(PREFIX + "live_sessions", "Live sessions of one ingress.")

    def count_request(self, path: str, model: str, outcome: str, seconds: float) -> None:
        """Count a request that was answered, and its seconds."""
        self._requests.inc(1, {"path": path, "model": model, "outcome": outcome})
        self._request_seconds.observe(seconds, {"path": path, "model": model})

    def count_price(self, model: str, verdict: str, row_seconds: float) -> None:
        """Add the price of a request by the verdict of admission."""
        self._row_seconds.inc(row_seconds, {"model": model, "verdict": verdict})

    def count_lookup(self, model: str, found: str) -> None:
        """Count a look into the cache by its result."""
        self._cache.inc(1, {"model": model, "found": found})

    def count_job(self, model: str, status: str) -> None:
        """Count a job that ended."""
        self._jobs.inc(1, {"model": model, "status": status})

    def set_waiting_jobs(self, jobs: int) -> None:
        """Set the number of jobs that wait."""
        self._jobs_waiting.set(jobs)

    def set_live_sessions(self, sessions: int) -> None:
        """Set the number of open live sessions."""
        self._live.set(sessions)

    def follow_clip(self, model: str, began: float) -> "ClipMetrics":
        """Return the metrics of a clip that was requested at `began`, by `time.perf_counter`."""
        return ClipMetrics(self, model, began)

    def observe_first_audio(self, model: str, seconds: float) -> None:
        """Add the seconds until a clip's first audio."""
        self._first_audio.observe(seconds, {"model": model})

    def observe_clip(self, model: str, audio_seconds: float, seconds: float) -> None:
        """Add the audio and the real-time factor of a finished clip."""
        self._audio_seconds.inc(audio_seconds, {"model": model})
        self._real_time_factor.observe(seconds / audio_seconds, {"model": model})

    def observe_part(self, model: str, late_seconds: float) -> None:
        """Add how late a part of a stream was."""
        self._late.observe(late_seconds, {"model": model})


class ClipMetrics:
    """The metrics of one clip, which arrives as a whole or in parts."""

    def __init__(self, metrics: Metrics, model: str, began: float) -> None:
        self._metrics, self._model, self._began = metrics, model, began
        self._first: float | None = None
        self._audio_seconds = 0.0

    def add_audio(self, audio_seconds: float) -> None:
        """Add seconds of audio that have arrived."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now
            self._metrics.observe_first_audio(self._model, now - self._began)
        else:
            late = now - self._first - self._audio_seconds
            self._metrics.observe_part(self._model, max(late, 0.0))
            self._first += max(late, 0.0)  # the player continues this much later
        self._audio_seconds += audio_seconds

    def finish_clip(self) -> None:
        """Add the finished clip to the metrics."""
        self._metrics.observe_clip(
            self._model, self._audio_seconds, time.perf_counter() - self._began
        )
