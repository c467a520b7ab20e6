"""Workflows that cannot be had: what is said of them, and that nothing is made."""

from typing import Any

import pytest

from api.settings import UserConfig
from tests.api.conftest import Served
from tests.api.test_uploads import wav
from tests.api.workflows.conftest import EFFECT, ROOT, SECTIONS, SONG, sound_of, speech

REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"sections": []}, 422, "sections", "at least 1"),
    ({"sections": [{"name": "a", "prompt": "b", "bars": 1, "seconds": 2}]}, 422, "sections.0",
     "either bars or seconds"),
    ({"sections": [{"name": "a", "prompt": "b"}]}, 422, "sections.0", "either bars or seconds"),
    ({"sections": [{"name": "a", "prompt": " ", "bars": 1}]}, 422, "sections.0.prompt", "empty"),
    ({"sections": [{"name": "a", "prompt": "b", "bars": 1, "beats": 2}]}, 422, "beats", "seconds"),
    ({"sections": [{"name": "a", "prompt": "b", "bars": 40}]}, 422, "sections.0", "up to 30 s"),
    ({"sections": [{"name": "a", "prompt": "b" * 101, "bars": 1}]}, 422, "sections.0.prompt",
     "allowed: 1 to 100"),
    ({"sections": SECTIONS * 3}, 422, "sections", "9 parts in one request; allowed: up to 6"),
    ({"tempo": 29}, 422, "tempo", "from 30 to 300"),
    ({"tempo": 301}, 422, "tempo", "from 30 to 300"),
    ({"key": "H minor"}, 422, "key", "F# minor"),
    ({"key": "A dorian"}, 422, "key", "major or minor"),
    ({"key": ""}, 422, "key", "major or minor"),
    ({"crossfade_beats": 3}, 422, "crossfade_beats", "sections.0 has 4"),
    ({"loudness": -41}, 422, "loudness", "from -40 to -5"),
    ({"loudness": -4}, 422, "loudness", "from -40 to -5"),
    ({"effects": [EFFECT | {"at": 9}]}, 422, "effects.0.at", "it ends at 10.5 s"),
    ({"effects": [EFFECT | {"duration": 31}]}, 422, "effects.0.duration", "up to 30 s"),
    ({"effects": [EFFECT | {"gain_db": 13}]}, 422, "effects.0.gain_db", "from -60 to 12"),
    ({"distribution": {"bandwidth": 1}}, 422, "distribution.bandwidth", "0.45, 0.9, 1.35, 1.8"),
    ({"model": "none"}, 404, "model", "valid: music, hum, sound"),
    ({"effects": [EFFECT], "effects_model": "none"}, 404, "effects_model", "valid: music"),
    ({"format": "mp3", "sample_rate": 12345}, 422, "sample_rate", "mp3 supports"),
    ({"normalize": "peak"}, 422, "normalize", "valid keys: format"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "status", "param", "says"), REFUSED)
async def test_a_song_that_cannot_be_had_says_why(
    served: Served, change: dict[str, Any], status: int, param: str, says: str
):
    response = await served.http.post(f"{ROOT}/song", json=SONG | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert says in error["message"]
    assert not served.music.seen
    assert not sound_of(served).seen


async def test_a_song_is_bounded_by_its_own_limit(served: Served):
    served.service.limits = UserConfig(max_song_s=9)
    response = await served.http.post(f"{ROOT}/song", json=SONG)
    assert response.status_code == 422
    assert "the song lasts 9.6 s; allowed: up to 9 s" in response.json()["error"]["message"]


async def test_without_a_sound_model_effects_and_ambiences_are_refused(served: Served):
    del served.service.registry.models["sound"]
    for where, body, param in (
        ("song", SONG | {"effects": [EFFECT]}, "effects_model"),
        ("podcast", {"theme": "sea", "intro": 1, "outro": 1}, "effects_model"),
        ("ambience", {"environment": "city"}, "model"),
    ):
        response = await served.http.post(f"{ROOT}/{where}", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (404, param), error
        assert "none is configured" in error["message"]
    assert not served.music.seen


FORMS: list[tuple[str, dict[str, str], dict[str, bytes], str, str]] = [
    ("podcast", {"theme": "sea"}, {"voice": b"not audio"}, "voice", ""),
    ("podcast", {"theme": "sea"}, {"melody": b"x"}, "melody", "valid: voice"),
    ("podcast", {"theme": "sea", "intro": "0.5"}, {}, "intro", "from 1"),
    ("podcast", {"theme": "sea", "intro": "31"}, {}, "intro", "up to 30 s"),
    ("podcast", {"theme": "sea", "transitions": "6"}, {}, "transitions", "from 0 to 5"),
    ("podcast", {"theme": "sea", "transitions": "5"}, {}, "transitions", "up to 6"),
    ("podcast", {"theme": "sea", "bed_gain_db": "1"}, {}, "bed_gain_db", "from -60 to 0"),
    ("podcast", {"theme": "x" * 101}, {}, "theme", "1 to 100"),
    ("podcast", {"intro": "1"}, {}, "theme", ""),
    ("style-transfer", {"style": "jazz"}, {}, "content", "a file is required"),
    ("style-transfer", {}, {"content": wav(1)}, "style", ""),
    ("style-transfer", {"style": "jazz"}, {"content": b"no"}, "content", ""),
    ("style-transfer", {"style": "jazz"}, {"content": wav(31)}, "content", "from 0.4 to 30 s"),
    ("style-transfer", {"style": "jazz"}, {"content": wav(0.2)}, "content", "from 0.4 to 30 s"),
    ("style-transfer", {"style": "jazz", "duration": "31"}, {"content": wav(1)}, "duration",
     "up to 30 s"),
    ("style-transfer", {"style": "jazz", "model": "music"}, {"content": wav(1)}, "model",
     "models that do: hum"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "form", "files", "param", "says"), FORMS)
async def test_a_form_that_cannot_be_had_says_why(
    served: Served,
    where: str,
    form: dict[str, str],
    files: dict[str, bytes],
    param: str,
    says: str,
):
    await served.service.registry.check_models(set())  # the message names models that are known
    parts = {name: (None, value) for name, value in form.items()}
    sent = {name: (f"{name}.wav", data) for name, data in files.items()}
    response = await served.http.post(f"{ROOT}/{where}", files=parts | sent)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, param), error
    assert says in error["message"]
    assert not served.music.seen
    assert not served.hum.seen


async def test_a_podcast_may_not_last_longer_than_a_song(served: Served):
    served.service.limits = UserConfig(max_song_s=6)
    form = {"theme": "sea", "intro": "1", "outro": "1", "transitions": "0"}
    response = await served.http.post(f"{ROOT}/podcast", data=form, files={"voice": speech()})
    error = response.json()["error"]
    assert error["param"] == "voice"
    assert "with intro and outro it lasts 7 s; allowed: up to 6 s" in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, None, "either environment or prompt"),
        ({"environment": "city", "prompt": "rain"}, None, "either environment or prompt"),
        ({"environment": "moon"}, "environment", "'forest', 'ocean', 'city' or 'dungeon'"),
        ({"environment": "city", "duration": 31}, "duration", "up to 30 s"),
        ({"environment": "city", "duration": 0.5}, "duration", "from 1"),
    ],
)
async def test_an_ambience_that_cannot_be_had_says_why(
    served: Served, body: dict[str, Any], param: str | None, says: str
):
    response = await served.http.post(f"{ROOT}/ambience", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, param), error
    assert says in error["message"]


async def test_without_a_model_for_melodies_there_is_no_style_transfer(served: Served):
    del served.service.registry.models["hum"]
    response = await served.http.post(
        f"{ROOT}/style-transfer", data={"style": "jazz"}, files={"content": wav(1)}
    )
    assert response.status_code == 422
    assert "none that is configured follows melodies" in response.json()["error"]["message"]
