"""What the ingress counts, for Prometheus; Ray adds deployment, replica and the prefix `ray_`."""

import time

from ray.serve.metrics import Counter, Histogram

SECONDS = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0]
LATE = [0.001, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]
FACTORS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]


class Metrics:
    """One ingress replica's."""

    def __init__(self) -> None:
        self._requests = Counter(
            "audiocraft_requests",
            description="Requests answered, by route, model and outcome: a status, or `cut`.",
            tag_keys=("path", "model", "outcome"),
        )
        self._request_seconds = Histogram(
            "audiocraft_request_seconds",
            description="From a request's arrival to the end of its answer.",
            boundaries=SECONDS,
            tag_keys=("path", "model"),
        )
        self._first_audio = Histogram(
            "audiocraft_first_audio_seconds",
            description="From a request's arrival to its first audio, whole clips included.",
            boundaries=SECONDS,
            tag_keys=("model",),
        )
        self._audio_seconds = Counter(
            "audiocraft_audio_seconds",
            description="Seconds of audio made.",
            tag_keys=("model",),
        )
        self._real_time_factor = Histogram(
            "audiocraft_real_time_factor",
            description="Seconds that a clip took by seconds of its audio.",
            boundaries=FACTORS,
            tag_keys=("model",),
        )
        self._late = Histogram(
            "audiocraft_late_seconds",
            description="How long a player would have waited for a part of a stream; 0: in time.",
            boundaries=LATE,
            tag_keys=("model",),
        )
        self._row_seconds = Counter(
            "audiocraft_row_seconds",
            description="Price of requests, by what admission said: `admitted`, or why not.",
            tag_keys=("model", "verdict"),
        )
        self._cache = Counter(
            "audiocraft_cache",
            description="Repeatable requests: `hit`, `joined` one that was being made, or `miss`.",
            tag_keys=("model", "found"),
        )

    def answered(self, path: str, model: str, outcome: str, seconds: float) -> None:
        """Count an answer."""
        self._requests.inc(1, {"path": path, "model": model, "outcome": outcome})
        self._request_seconds.observe(seconds, {"path": path, "model": model})

    def priced(self, model: str, verdict: str, row_seconds: float) -> None:
        """Count what admission said."""
        self._row_seconds.inc(row_seconds, {"model": model, "verdict": verdict})

    def looked_up(self, model: str, found: str) -> None:
        """Count what the cache had of a request."""
        self._cache.inc(1, {"model": model, "found": found})

    def clip(self, model: str, began: float) -> "ClipMetrics":
        """Follow a clip that was asked for at `began`, of `time.perf_counter`."""
        return ClipMetrics(self, model, began)

    def first_audio(self, model: str, seconds: float) -> None:
        """Count a clip's first audio."""
        self._first_audio.observe(seconds, {"model": model})

    def made(self, model: str, audio_seconds: float, seconds: float) -> None:
        """Count a finished clip."""
        self._audio_seconds.inc(audio_seconds, {"model": model})
        self._real_time_factor.observe(seconds / audio_seconds, {"model": model})

    def part(self, model: str, late_seconds: float) -> None:
        """Count a later part of a stream."""
        self._late.observe(late_seconds, {"model": model})


class ClipMetrics:
    """Watches one clip come, at once or in parts."""

    def __init__(self, metrics: Metrics, model: str, began: float) -> None:
        self._metrics, self._model, self._began = metrics, model, began
        self._first: float | None = None
        self._audio_seconds = 0.0

    def came(self, audio_seconds: float) -> None:
        """Take in that so much audio more is there."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now
            self._metrics.first_audio(self._model, now - self._began)
        else:
            late = now - self._first - self._audio_seconds
            self._metrics.part(self._model, max(late, 0.0))
            self._first += max(late, 0.0)  # the player has waited, and goes on from here
        self._audio_seconds += audio_seconds

    def ended(self) -> None:
        """Take in that the clip is whole."""
        self._metrics.made(self._model, self._audio_seconds, time.perf_counter() - self._began)
