"""Workflows over HTTP: what is asked of the models, what is charged, and what comes back."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.types import Message

from api.audio.tags import AI_GENERATED, COMPOSITE
from api.settings import KeySettings, UserConfig
from engine.errors import GenerationFailed
from graph.workflows.levels import measure_loudness
from tests.api.asgi import asgi
from tests.api.conftest import LocalLedger, Served
from tests.api.test_uploads import RATE, wav
from tests.api.workflows.conftest import (
    BAR_S,
    EFFECT,
    EVENTS,
    ROOT,
    SONG,
    events_of,
    heard,
    sound_of,
    speech,
)
from tests.waiting import until_async


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await until_async(holds)


async def test_sections_go_on_from_each_other(served: Served):
    song = heard(await served.http.post(f"{ROOT}/song", json=SONG))
    first, second, third = served.music.seen
    assert [one.text for one in served.music.seen] == [
        "calm piano, in A minor, 100 bpm",
        "with drums, in A minor, 100 bpm",
        "with bells, in A minor, 100 bpm",
    ]
    assert first.prompt is None
    assert first.frames == BAR_S * 50
    beat_frames = 30
    for code, before, one in ((3, first, second), (4, second, third)):
        assert one.prompt.frames == min(before.frames - beat_frames, 250)
        assert (one.prompt.array()[:, -10:] == code).all(), "of the section before"
    assert second.frames - second.prompt.frames == 2 * BAR_S * 50 + beat_frames, "in whole bars"
    assert {one.seed for one in served.music.seen} == {3}
    assert len({one.variation for one in served.music.seen}) == 3
    assert song.mix.shape == (1, round(4 * BAR_S * RATE))
    assert song.names == ["intro", "verse", "verse"]
    bars = [0, 1, 3, 4]
    assert song.body["timing"] == [
        {"name": name, "start": pytest.approx(start * BAR_S), "end": pytest.approx(end * BAR_S)}
        for name, start, end in zip(song.names, bars, bars[1:], strict=False)
    ]
    starts = [stem["start"] for stem in song.body["stems"]]
    assert starts == pytest.approx([0, BAR_S - 0.6, 3 * BAR_S - 0.6])
    np.testing.assert_allclose(song.summed(), song.mix, atol=3 / 32768)


async def test_sections_fall_on_bars_to_the_sample_at_any_tempo(served: Served):
    body = SONG | {"tempo": 133.7, "beats_per_bar": 3, "crossfade_beats": 0.5}
    song = heard(await served.http.post(f"{ROOT}/song", json=body))
    bar = 3 * 60 / 133.7
    edges = [0, 1, 1 + round(4.4 / bar), 2 + round(4.4 / bar)]
    starts = [span["start"] for span in song.body["timing"]]
    assert starts == [round(edge * bar * RATE) / RATE for edge in edges[:-1]]
    assert song.mix.shape[1] == round(edges[-1] * bar * RATE)
    np.testing.assert_allclose(song.summed(), song.mix, atol=3 / 32768)


UNLIMITED = -30
"""LUFS, with which these have no peaks that would be limited."""


async def test_a_song_is_what_its_codes_decode_to(served: Served):
    """Without crossfades or a gain of its own, the sections join as if they were one clip."""
    body = SONG | {"crossfade_beats": 0, "loudness": UNLIMITED}
    song = heard(await served.http.post(f"{ROOT}/song", json=body))
    frames = [round(bars * BAR_S * 50) for bars in (1, 2, 1)]
    codes = np.concatenate([np.full((4, n), 3 + i) for i, n in enumerate(frames)], axis=1)
    decoded = await served.http.post("/v1/codec/decode", json={"codes": codes.tolist()})
    whole, _ = soundfile.read(io.BytesIO(decoded.content), dtype="float32")
    gain = float(song.mix[0] @ whole / (whole @ whole))
    edges = np.cumsum(frames) * 320
    for start, end in zip([0, *edges], edges, strict=False):
        inside = slice(start, end - 2000)  # what is to come is not yet in the codec's last frames
        np.testing.assert_allclose(song.mix[0, inside], gain * whole[inside], atol=2e-3)


async def test_effects_are_laid_over(served: Served):
    effects = [EFFECT, EFFECT | {"at": BAR_S * 4 - 1.5, "gain_db": 0}]
    quiet = SONG | {"loudness": UNLIMITED}
    song = heard(await served.http.post(f"{ROOT}/song", json=quiet | {"effects": effects}))
    plain = heard(await served.http.post(f"{ROOT}/song", json=quiet))
    assert song.names[3:] == ["effect 1", "effect 2"]
    assert [one.text for one in sound_of(served).seen] == ["thunder", "thunder"]
    assert song.stems[3].shape[1] == 1.5 * RATE
    assert song.body["stems"][3]["start"] == 1
    np.testing.assert_allclose(song.summed(), song.mix, atol=3 / 32768)
    gain = np.abs(song.stems[0]).max() / np.abs(plain.stems[0]).max()
    np.testing.assert_allclose(song.stems[0], plain.stems[0] * gain, atol=2e-4)
    music = measure_loudness(song.summed(3), RATE)
    levels = [measure_loudness(song.stems[n], RATE) - music for n in (3, 4)]
    assert levels == pytest.approx([-6, 0], abs=0.1), "beside the music"


async def test_all_that_can_be_is_made_at_once(served: Served):
    gate = served.music.held = sound_of(served).held = asyncio.Event()
    body = SONG | {"effects": [EFFECT, EFFECT]}
    task = asyncio.create_task(served.http.post(f"{ROOT}/song", json=body))
    await until(lambda: len(served.music.seen) + len(sound_of(served).seen) == 3)
    assert len(served.music.seen) == 1, "the other sections need its codes"
    gate.set()
    assert (await task).status_code == 200
    gate.clear()
    form = {"theme": "sea", "intro": "1", "outro": "1", "transitions": "2"}
    files = {"voice": speech()}
    task = asyncio.create_task(served.http.post(f"{ROOT}/podcast", data=form, files=files))
    await until(lambda: len(served.music.seen) + len(sound_of(served).seen) == 5 + 5)
    gate.set()
    assert (await task).status_code == 200


async def test_each_model_is_charged_for_all_of_its_parts(served: Served):
    ledger: LocalLedger = served.service.ledger.methods
    gate = served.music.held = asyncio.Event()
    body = SONG | {"effects": [EFFECT, EFFECT], "distribution": {"bandwidth": 0.9}}
    task = asyncio.create_task(served.http.post(f"{ROOT}/song", json=body))
    await until(lambda: len(served.music.seen) == 1)
    two_crossfades = 2 * 0.6
    two_contexts = 2 * 5.0
    music = 2 * (4 * BAR_S + two_crossfades + two_contexts)
    assert ledger.accounts.compute_backlog()["music"] == pytest.approx(music)
    gate.set()
    assert (await task).status_code == 200
    await until(lambda: not ledger.accounts.compute_backlog())


def with_key(served: Served, **of_key: Any) -> dict[str, str]:
    key = KeySettings(name="one", sha256=[sha256(b"k").hexdigest()], **of_key)
    served.service.limits = UserConfig(keys=(key,))
    return {"authorization": "Bearer k"}


async def test_a_song_is_one_request_of_its_keys_rate(served: Served):
    headers = with_key(served, requests_per_minute=2)
    body = SONG | {"effects": [EFFECT], "cache": False}
    answers = [await served.http.post(f"{ROOT}/song", json=body, headers=headers) for _ in "123"]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limited"


async def test_a_song_alone_is_not_refused_for_its_own_beginning(served: Served):
    headers = with_key(served, row_seconds=5)
    body = SONG | {"effects": [EFFECT]}
    response = await served.http.post(f"{ROOT}/song", json=body, headers=headers)
    assert response.status_code == 200, response.text


async def test_who_leaves_ends_all_parts(served: Served):
    gate = served.music.gate = sound_of(served).gate = asyncio.Event()
    ledger: LocalLedger = served.service.ledger.methods
    left = asyncio.Event()
    body = SONG | {"effects": [EFFECT]}
    messages = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False},
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    def sent(message: Message) -> None:
        if message.get("body"):
            left.set()

    headers = {"content-type": "application/json", **EVENTS}
    answer = await asyncio.wait_for(asgi(served.app, f"{ROOT}/song", headers, receive, sent), 10)
    assert b"event: progress" in answer[1]["body"]
    await until(lambda: not ledger.accounts.compute_backlog())
    assert not gate.is_set(), "no part has come to its end"
    assert len(served.music.seen) == 1


async def test_a_cancelled_answer_frees_all(served: Served):
    served.music.gate = sound_of(served).gate = asyncio.Event()
    ledger: LocalLedger = served.service.ledger.methods
    body = SONG | {"effects": [EFFECT]}
    task = asyncio.create_task(served.http.post(f"{ROOT}/song", json=body))
    await until(lambda: len(ledger.accounts.compute_backlog()) == 2)
    await until(lambda: bool(served.music.seen))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not ledger.accounts.compute_backlog())


async def test_a_part_that_fails_fails_the_whole(served: Served):
    sound_of(served).error = GenerationFailed("no")
    body = SONG | {"effects": [EFFECT]}
    response = await served.http.post(f"{ROOT}/song", json=body)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "generation_failed"
    sound_of(served).fails_at = 1
    response = await served.http.post(f"{ROOT}/song", json=body, headers=EVENTS)
    assert response.status_code == 200
    name, data = events_of(response.text)[-1]
    assert name == "error"
    assert data["error"]["code"] == "generation_failed"


async def test_progress_comes_as_events(served: Served):
    body = SONG | {"effects": [EFFECT]}
    response = await served.http.post(f"{ROOT}/song", json=body, headers=EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-seed"] == "3"
    told = events_of(response.text)
    whole = (await served.http.post(f"{ROOT}/song", json=body)).json()
    assert told[-1] == ("done", whole)
    progress = [data for name, data in told[:-1] if name == "progress"]
    assert len(progress) == len(told) - 1
    assert {one["part"] for one in progress} == {"intro", "verse", "effect 1", "mix"}
    shares = [one["progress"] for one in progress]
    assert shares == sorted(shares)
    assert shares[-1] == shares[-2] == 1
    for one in progress:
        assert 0 <= one["done"] <= one["total"]


async def test_the_distribution_mix_has_fewer_codebooks(served: Served):
    body = SONG | {"distribution": {"bandwidth": 0.9}}
    answer = (await served.http.post(f"{ROOT}/song", json=body)).json()
    mix = base64.b64decode(answer["mix"]["audio"])
    encoded = await served.http.post(
        "/v1/codec/encode", files={"audio_file": mix}, data={"bandwidth": "0.9"}
    )
    codes = encoded.json()
    assert codes["codebooks"] == 2
    decoded = await served.http.post(
        "/v1/codec/decode", json={name: codes[name] for name in ("codes", "samples")}
    )
    ours = base64.b64decode(answer["distribution"]["audio"])
    a, b = (
        soundfile.read(io.BytesIO(file), dtype="float32")[0] for file in (ours, decoded.content)
    )
    assert a.shape == b.shape
    assert np.corrcoef(a, b)[0, 1] > 0.95, "but for the mix's own 16 bits"


async def test_a_podcast_without_a_voice_is_a_row(served: Served):
    body = {"theme": "the sea", "intro": 2, "outro": 1, "transitions": 2, "seed": 1}
    podcast = heard(await served.http.post(f"{ROOT}/podcast", json=body))
    assert podcast.names == ["intro", "transition 1", "transition 2", "outro"]
    starts = [stem["start"] for stem in podcast.body["stems"]]
    assert starts == [0, 2.5, 5, 7.5]
    assert podcast.mix.shape[1] == 8.5 * RATE
    assert all("the sea" in one.text for one in served.music.seen)
    assert [one.text for one in sound_of(served).seen] == ["smooth transition sound", "chime"]
    np.testing.assert_allclose(podcast.summed(), podcast.mix, atol=4 / 32768)


async def test_a_podcast_lies_around_its_voice(served: Served):
    form = {"theme": "the sea", "intro": "3", "outro": "3", "transitions": "1", "seed": "1"}
    files = {"voice": speech()}
    podcast = heard(await served.http.post(f"{ROOT}/podcast", data=form, files=files))
    assert podcast.names == ["intro", "bed", "voice", "outro", "transition 1"]
    assert podcast.mix.shape[1] == (3 + 5 + 3) * RATE
    starts = [stem.get("start") for stem in podcast.body["stems"]]
    assert starts == [0, 1.5, 3, 8, None]
    spans = [(span["name"], span["start"], span["end"]) for span in podcast.body["timing"]]
    assert spans == [("intro", 0, 3), ("voice", 3, 8), ("outro", 8, 11)]
    np.testing.assert_allclose(podcast.summed(), podcast.mix, atol=4 / 32768)


async def test_what_was_made_says_so_and_a_voice_does_not(served: Served):
    form = {"theme": "the sea", "intro": "1", "outro": "1", "transitions": "1"}
    answer = await served.http.post(f"{ROOT}/podcast", data=form, files={"voice": speech()})
    body = answer.json()
    files = {one["name"]: base64.b64decode(one["audio"]) for one in [body["mix"], *body["stems"]]}
    assert COMPOSITE.encode() in files["mix"]
    assert AI_GENERATED.encode() not in files["mix"]
    assert b"digital_source_type" not in files["voice"]
    for name in ("intro", "bed", "outro", "transition 1"):
        assert AI_GENERATED.encode() in files[name], name
    assert b"the sea, podcast intro music" in files["intro"]
    untold = await served.http.post(
        f"{ROOT}/song", json=SONG | {"tag_prompt": False, "cache": False}
    )
    for track in (untold.json()["mix"], *untold.json()["stems"]):
        file = base64.b64decode(track["audio"])
        assert AI_GENERATED.encode() in file
        assert b"piano" not in file


async def test_an_ambience_is_kept(served: Served):
    body = {"environment": "forest", "duration": 1.5, "seed": 4}
    first = await served.http.post(f"{ROOT}/ambience", json=body)
    again = await served.http.post(f"{ROOT}/ambience", json=body)
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert first.content == again.content
    (made,) = sound_of(served).seen
    assert "forest" in made.text
    assert made.frames == 113, "2.25 s, in whole frames"
    loop = heard(first)
    assert loop.mix.shape == (1, 1.5 * RATE)
    assert loop.stems == []
    for other in ({"seed": 5}, {"environment": "city"}, {"cache": False}, {"duration": 2}):
        await served.http.post(f"{ROOT}/ambience", json=body | other)
    assert len(sound_of(served).seen) == 5
    unseeded = await served.http.post(f"{ROOT}/ambience", json={"prompt": "rain", "duration": 1})
    assert "x-cache" not in unseeded.headers


async def test_a_style_is_heard_by_what_follows_melodies(served: Served):
    files = {"content": wav(1.5, rate=22050)}
    response = await served.http.post(
        f"{ROOT}/style-transfer", data={"style": "brass band"}, files=files
    )
    styled = heard(response)
    (made,) = served.hum.seen
    assert made.text == "brass band"
    assert made.melody.seconds == pytest.approx(1.5, abs=1e-3)
    assert styled.mix.shape[1] == pytest.approx(1.5 * RATE, abs=1)
    assert response.headers["x-model"] == "hum"
    assert response.headers["x-melody-stems"] == "separated"
    form = {"style": "brass band", "duration": "1"}
    shorter = heard(await served.http.post(f"{ROOT}/style-transfer", data=form, files=files))
    assert shorter.body["duration"] == 1
