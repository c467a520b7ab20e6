"""What is counted, and under which names; tests/cluster scrapes it."""

import time
from typing import Any

import pytest

from engine.errors import GenerationFailed
from graph.metrics import ClipMetrics
from tests.api.conftest import Served

PATH = "/v1/generations"


class Noted:
    """Stands for `Metrics`: keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, *args in self.calls if called == name]


@pytest.fixture
def noted(served: Served, monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted, metrics = Noted(), served.service.metrics
    for name in (
        "count_request",
        "count_price",
        "observe_first_audio",
        "observe_clip",
        "observe_part",
    ):
        monkeypatch.setattr(metrics, name, getattr(noted, name))
    return noted


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clip_is_counted(served: Served, noted: Noted, stream: bool):
    body = {"prompt": "a", "duration": 2, "stream": stream}
    await served.http.post(PATH, json=body)
    ((path, model, outcome, seconds),) = noted.of("count_request")
    assert (path, model, outcome) == (PATH, "music", "200")
    ((_, first),) = noted.of("observe_first_audio")
    ((_, audio, whole),) = noted.of("observe_clip")
    assert 0 < first <= whole <= seconds < 60
    assert audio == pytest.approx(2)
    assert noted.of("count_price") == [["music", "admitted", 4.0]]
    assert all(late == 0 for _, late in noted.of("observe_part"))


async def test_what_goes_wrong_is_counted(served: Served, noted: Noted):
    await served.http.post(PATH, json={"prompt": ""})
    await served.http.get("/nowhere/42")
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    await served.http.post(PATH, json={"prompt": "a"})
    await served.http.post(PATH, json={"prompt": "a", "stream": True})
    served.music.error = KeyError("nobody foresaw it")
    await served.http.post(PATH, json={"prompt": "a"})
    assert [one[:3] for one in noted.of("count_request")] == [
        [PATH, "none", "422"],
        ["none", "none", "404"],
        [PATH, "music", "500"],
        [PATH, "music", "cut"],
        [PATH, "music", "500"],
    ]


def test_a_part_that_comes_too_late_is_an_underrun(monkeypatch: pytest.MonkeyPatch):
    noted, now = Noted(), 10.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clip = ClipMetrics(noted, "music", 9.5)  # type: ignore[arg-type]
    clip.add_audio(0.3)
    now += 0.29
    clip.add_audio(1.0)
    now += 1.02
    clip.add_audio(1.0)
    clip.add_audio(1.0)
    assert noted.of("observe_part") == [
        ["music", 0.0],
        ["music", pytest.approx(0.01)],
        ["music", 0.0],
    ]
    assert noted.of("observe_first_audio") == [["music", 0.5]]
