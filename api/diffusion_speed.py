"""How long multi-band diffusion takes, which no charge tells: it is part of its clip's."""

ASSUMED = 1.0
"""Seconds for a second of audio, until a clip has told more."""


class Pace:
    """As one ingress replica has seen it, of late."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def came(self, model: str, seconds: float, audio_seconds: float) -> None:
        """Take in how long a model took; the last says as much as all before."""
        now = seconds / audio_seconds
        self._seconds[model] = (self._seconds.get(model, now) + now) / 2

    def of(self, model: str) -> float:
        """Return a model's seconds for a second of audio."""
        return self._seconds.get(model, ASSUMED)
