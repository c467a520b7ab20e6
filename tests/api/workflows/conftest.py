"""What tests of workflows ask, and how they hear the answers."""

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import soundfile

from tests.api.conftest import FakeLanguageModel, Served

ROOT = "/v1/workflows"
EVENTS = {"accept": "text/event-stream"}
SECTIONS = [
    {"name": "intro", "prompt": "calm piano", "bars": 1},
    {"name": "verse", "prompt": "with drums", "seconds": 4.4},
    {"name": "verse", "prompt": "with bells", "bars": 1},
]
SONG: dict[str, Any] = {"sections": SECTIONS, "key": "A minor", "tempo": 100, "seed": 3}
BAR_S = 4 * 60 / 100
EFFECT = {"prompt": "thunder", "at": 1, "duration": 1.5}


@dataclass
class Heard:
    """An answer with its tracks as samples, float [channels, samples]."""

    body: dict[str, Any]
    mix: np.ndarray
    stems: list[np.ndarray]
    rate: int

    @property
    def names(self) -> list[str]:
        return [stem["name"] for stem in self.body["stems"]]

    def stem(self, name: str) -> np.ndarray:
        return self.stems[self.names.index(name)]

    def start(self, name: str) -> int:
        return round(self.body["stems"][self.names.index(name)]["start"] * self.rate)

    def summed(self, first: int | None = None) -> np.ndarray:
        """The stems that have a start, each in its place: all, or the first so many."""
        mix = np.zeros_like(self.mix)
        for told, stem in list(zip(self.body["stems"], self.stems, strict=True))[:first]:
            if "start" in told:
                start = round(told["start"] * self.rate)
                mix[:, start : start + stem.shape[1]] += stem
        return mix


def sound_of(served: Served) -> FakeLanguageModel:
    return served.service.registry.handles["sound"]


def samples(track: dict[str, Any]) -> np.ndarray:
    file = io.BytesIO(base64.b64decode(track["audio"]))
    audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
    assert audio.shape[0] == round(track["duration"] * rate)
    return audio.T


def heard(response: httpx.Response) -> Heard:
    assert response.status_code == 200, response.text
    body = response.json()
    stems = [samples(stem) for stem in body["stems"]]
    found = Heard(body, samples(body["mix"]), stems, body["sample_rate"])
    assert found.mix.shape == (body["channels"], round(body["duration"] * found.rate))
    return found


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def speech(rate: int = 22050, level: float = 0.1) -> bytes:
    """Two seconds of a voice, two of a pause, one of a voice: bursts of a harmonic tone."""
    at = np.arange(5 * rate) / rate
    tone = sum(np.sin(2 * np.pi * 140 * n * at) / n for n in range(1, 8))
    spoken = tone * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * at)) * level
    spoken[2 * rate : 4 * rate] = 0
    file = io.BytesIO()
    soundfile.write(file, spoken, rate, format="WAV")
    return file.getvalue()
