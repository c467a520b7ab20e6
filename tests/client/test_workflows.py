"""Tests the workflows of clients and command line against the real routes."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.respond import workflows as making
from api.schemas import workflows as bodies
from audiocraft_serve import errors, parameters
from audiocraft_serve.workflows import Production, Timing, Track, WorkflowProgress
from tests.client.conftest import Served
from tests.client.test_cli import Cli, check_ok, cli, read_files
from tests.client.test_client import make_wav, read_seconds

__all__ = ["cli"]
SECTIONS: list[parameters.SectionParameters] = [
    {"name": "intro", "prompt": "calm piano", "bars": 1},
    {"name": "verse", "prompt": "with drums", "seconds": 2},
]


def test_every_parameter_of_the_server_can_be_given():
    for ours, theirs, given in (
        (parameters.SongParameters, bodies.SongBody, {"sections"}),
        (parameters.PodcastParameters, bodies.PodcastBody, {"theme"}),
        (parameters.AmbienceParameters, bodies.AmbienceBody, set()),
        (parameters.StyleParameters, bodies.StyleTransferBody, {"style"}),
        (parameters.SectionParameters, bodies.Section, set()),
        (parameters.EffectParameters, bodies.Effect, set()),
    ):
        fields = set(theirs.model_fields) - given
        assert set(ours.__annotations__) - {"voice"} == fields
    for answer, theirs in (
        (Track, making.Track), (Timing, making.Timing), (Production, making.WorkflowAnswer),
        (WorkflowProgress, making.WorkflowProgress),
    ):  # fmt: skip
        told = set(answer.__dataclass_fields__) - {"request_id", "cache"}
        assert told == set(theirs.model_fields)


@pytest.mark.parametrize("watched", [False, True])
async def test_a_song(client: Any, watched: bool, tmp_path: Path):
    told = list[WorkflowProgress]()
    more = {"on_progress": told.append} if watched else {}
    effects = [{"prompt": "thunder", "at": 1, "duration": 1}]
    made = await client.song(SECTIONS, tempo=120, seed=3, effects=effects, format="flac", **more)
    assert (made.seed, made.format, made.timing[0]) == (3, "flac", Timing("intro", 0, 2))
    assert read_seconds(made.mix.audio) == made.duration == 4
    assert [stem.name for stem in made.stems][:2] == ["intro", "verse"]
    assert all(stem.audio for stem in made.stems)
    assert bool(told) == watched
    made.save(tmp_path / "song.flac")
    assert read_files(tmp_path)["song.flac"] == made.mix.audio


async def test_a_podcast(client: Any):
    made = await client.podcast("calm piano", intro=1, outro=1, transitions=1)
    assert made.duration > 2
    spoken = await client.podcast("calm piano", intro=3, outro=3, transitions=0, voice=make_wav(3))
    assert read_seconds(spoken.mix.audio) == pytest.approx(spoken.duration)


async def test_an_ambience(client: Any):
    made = await client.ambience(environment="ocean", duration=2, seed=1)
    again = await client.ambience(environment="ocean", duration=2, seed=1)
    assert read_seconds(made.mix.audio) == 2
    assert (made.cache, again.cache) == ("miss", "hit")
    assert made.stems == []


async def test_a_style(client: Any, served: Served):
    made = await client.style_transfer(make_wav(2), "brass band")
    assert (made.model, read_seconds(made.mix.audio)) == ("hum", 2)


async def test_a_refusal(client: Any):
    with pytest.raises(errors.InvalidRequest) as caught:
        await client.song(SECTIONS, key="H minor")
    assert caught.value.param == "key"


async def test_by_the_command_line(cli: Cli, served: Served, tmp_path: Path):
    song = ("song", "intro:1:calm piano", "a/b:1:with drums", "--tempo", 120)
    check_ok(await cli(*song, "--effect", "0.5:thunder", "--stems", "parts", "-o", "song.mp3"))
    found = read_files(tmp_path)
    assert {"song.mp3", "01-intro.mp3", "02-a-b.mp3"} <= set(found)
    assert [one.text for one in served.music.seen] == [
        "calm piano, 120 bpm", "with drums, 120 bpm",
    ]  # fmt: skip
    score = json.dumps({"sections": SECTIONS, "tempo": 90}).encode()
    told = check_ok(
        await cli("song", "--score", "-", "--tempo", 120, "-o", "b.wav", "--json", data=score)
    )
    facts = json.loads(told.stdout)
    assert (facts["duration"], facts["tracks"][0]["path"]) == (4, "b.wav")
    check_ok(
        await cli("podcast", "news", "--intro", 1, "--outro", 1, "--transitions", 0, "-o", "p.wav")
    )
    check_ok(await cli("ambience", "forest", "-d", 1, "-o", "forest.flac"))
    check_ok(await cli("ambience", "-", "-d", 1, "-o", "rain.flac", data=b"rain on a roof"))
    (tmp_path / "in.wav").write_bytes(make_wav(1))
    check_ok(await cli("style", "in.wav", "brass band", "-o", "brass.wav"))
    assert read_seconds(read_files(tmp_path)["brass.wav"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("song", "-o", "a.wav"),
        ("song", "intro:calm piano", "-o", "a.wav"),
        ("song", "a:1:b", "--effect", "x:y", "-o", "a.wav"),
        ("song", "--score", "missing.json", "-o", "a.wav"),
        ("ambience", "forest", "-o", "-", "--json"),
    ],
)
async def test_a_wrong_command_line(cli: Cli, arguments: tuple[str, ...]):
    assert (await cli(*arguments)).exit_code == 2
