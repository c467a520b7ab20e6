"""docs/live.md: its example, run; its figures, compared."""

import asyncio
import re
import wave
from pathlib import Path

import pytest

from api.schemas.live import CALM, MOODS, describe_state
from api.settings import UserConfig
from tests.api.conftest import Served
from tests.application import ROOT

PAGE = (ROOT / "docs" / "live.md").read_text()


async def test_the_example_works(
    served: Served, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    await asyncio.to_thread(exec, example, {"URL": address})
    with wave.open("live.wav") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert 6 <= file.getnframes() / 16000 <= 8
        assert any(file.readframes(file.getnframes()))
    assert [one.seed for one in served.music.seen] == [7] * len(served.music.seen)
    assert {one.text for one in served.music.seen} == {
        "calm piano", "intense battle music, city",
    }  # fmt: skip


def test_the_limits_are_the_pages():
    told = dict(re.findall(r"^\| `(\w*live\w*)` \| (\d+) \|", PAGE, re.MULTILINE))
    ours = {name: getattr(UserConfig(), name) for name in UserConfig.model_fields if "live" in name}
    assert {name: float(value) for name, value in told.items()} == ours


@pytest.mark.parametrize(
    ("tension", "mood"),
    [(1.0, MOODS[0][1]), (0.8, MOODS[1][1]), (0.81, MOODS[0][1]), (0.5, CALM), (0.0, CALM)],
)
def test_states_sound_as_the_page_says(tension: float, mood: str):
    assert f"`{mood}`" in PAGE
    assert describe_state(tension, None) == mood
    assert describe_state(tension, "city") == f"{mood}, city"
