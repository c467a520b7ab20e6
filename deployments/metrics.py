"""Exports metrics to Prometheus; Ray adds the deployment, the replica and the prefix `ray_`."""

from typing import TYPE_CHECKING

from ray.serve.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from engine.params import Load

ITEMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
SECONDS_OF_AUDIO = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 600.0]


class EngineMetrics:
    """The metrics of a token model's engine."""

    def __init__(self) -> None:
        self._gauges = {
            "slots": Gauge("audiocraft_slots", description="Requests that can decode at once."),
            "running": Gauge("audiocraft_slots_used", description="Requests that decode."),
            "waiting": Gauge("audiocraft_waiting", description="Requests that wait for a slot."),
        }
        self._counters = {
            "steps": Counter("audiocraft_steps", description="Decode steps."),
            "frames": Counter("audiocraft_frames", description="Frames of codes made."),
            "seconds": Counter("audiocraft_step_seconds", description="Seconds in decode steps."),
        }
        self._counted = dict.fromkeys(self._counters, 0.0)

    def update_from(self, load: "Load") -> None:
        """Set the gauges and increase the counters to the engine's current load."""
        for name, gauge in self._gauges.items():
            gauge.set(getattr(load, name))
        done = {
            "steps": load.steps,
            "frames": load.frames,
            "seconds": load.steps * load.step_ms / 1000,
        }
        for name, counter in self._counters.items():
            if (more := done[name] - self._counted[name]) > 0:
                counter.inc(more)
                self._counted[name] = done[name]


class BatchMetrics:
    """The metrics of a deployment that runs batches."""

    def __init__(self) -> None:
        self._items = Histogram(
            "audiocraft_batch_items", description="Items of a batch.", boundaries=ITEMS
        )
        self._seconds = Histogram(
            "audiocraft_batch_audio_seconds",
            description="Seconds of audio of a batch.",
            boundaries=SECONDS_OF_AUDIO,
        )

    def count_batch(self, items: int, seconds: float) -> None:
        """Count a batch by its number of items and its seconds of audio."""
        self._items.observe(items)
        self._seconds.observe(seconds)
