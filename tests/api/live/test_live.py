"""Live sessions over a real connection: what is heard, and when."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from ray.exceptions import ActorDiedError
from websockets.asyncio.client import connect

from api.ingress import create_app
from api.settings import UserConfig
from deployments.settings import EnCodecSettings, MusicGenSettings
from engine.codec import Codec
from engine.errors import GenerationFailed
from engine.params import Codes, CodesPiece
from tests.api.conftest import Answers, FakeLanguageModel, Media, Real, Served, serving
from tests.api.live.conftest import Client, Open, eventually, listening
from tests.waiting import until_async

FRAME = 320
FAR = UserConfig(live_ahead_s=1000)
"""Nothing waits for a listener."""


def samples(client: Client) -> np.ndarray:
    return np.frombuffer(client.audio, "<i2").astype(int)


def made_of(codec: Codec, codes: np.ndarray) -> np.ndarray:
    """One decode of all codes, in steps of 16 bits."""
    (audio,) = codec.decode([CodesPiece(Codes.pack(codes))])
    return np.round(audio.audio.array()[0] * 32768).clip(-32768, 32767).astype(int)


def passage_codes(seed: int, frames: int, passages: int) -> np.ndarray:
    """As the double of a language model makes them."""
    return np.concatenate(
        [np.full((4, frames), (seed + number) % 512) for number in range(passages)], axis=1
    )


async def test_passages_join_without_a_seam(served: Served, codec: Codec, session: Open):
    served.service.limits = FAR
    async with session() as live:
        await live.start(prompt="calm piano", seed=5, passage=1.5)
        await live.hear_until(lambda: len(live.passages) == 4)
        await live.say(stop=True)
        assert await live.end() == 1000
    heard = samples(live)
    frames, rest = divmod(len(heard), FRAME)
    assert rest == 0
    assert frames >= 3 * 75
    wanted = made_of(codec, passage_codes(5, 75, len(live.passages))[:, :frames])
    assert np.abs(heard - wanted).max() <= 1
    assert heard.std() > 1


async def test_it_begins_with_what_it_is(served: Served, session: Open):
    async with session() as live:
        await live.start(prompt="calm piano", seed=5, passage=2)
        started = dict(live.started)
        assert started.pop("request_id")
        assert started == {
            "type": "started", "model": "music", "seed": 5, "sample_rate": 16000, "channels": 1,
            "format": "s16le", "passage": 2.0, "ahead": 3.0,
        }  # fmt: skip
        assert await live.hear() == "passage"
        assert live.passages == [
            {"type": "passage", "number": 0, "start": 0, "duration": 2.0, "prompt": "calm piano"}
        ]


async def test_each_passage_goes_on_under_the_newest_prompt(served: Served, session: Open):
    served.service.limits = FAR
    gate = served.music.gate = asyncio.Event()
    gate.set()
    async with session() as live:
        await live.start(prompt="a", seed=1, passage=10, temperature=0.5, guidance_scale=2)
        await live.hear_until(lambda: len(live.passages) == 2)
        gate.clear()
        await live.say(tension=0.9, location="city")
        await live.say(played=1)
        await live.connection.ping()
        gate.set()
        await live.hear_until(lambda: len(live.passages) == 6)
    seen = served.music.seen
    assert {one.text for one in seen} == {"a", "intense battle music, city"}
    assert seen[-1].text == live.passages[-1]["prompt"] == "intense battle music, city"
    assert [one["start"] for one in live.passages] == [0, 10, 20, 30, 40, 50]
    assert [one.variation for one in seen[:4]] == [0, 1, 2, 3]
    assert {(one.temperature, one.guidance_scale, one.seed) for one in seen} == {(0.5, 2, 1)}
    # The window has 30 s: 20 of them are what came before.
    assert [one.frames for one in seen[:4]] == [500, 1000, 1500, 1500]
    assert seen[0].prompt is None
    before = passage_codes(1, 500, 3)
    np.testing.assert_array_equal(seen[1].prompt.array(), before[:, :500])
    np.testing.assert_array_equal(seen[3].prompt.array(), before[:, 500:])


async def test_no_more_is_sent_than_may_be_ahead(served: Served, session: Open):
    """What was played is what the client says, but time goes no faster for it."""
    served.service.limits = UserConfig(live_ahead_s=3, live_idle_s=60)
    async with session() as live:
        await live.start(prompt="a", passage=2)
        await live.hear_until(lambda: len(samples(live)) > 3.9 * 16000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await live.hear()
        assert len(served.music.seen) == 2
        await live.say(played=0.9)
        await live.say(played=1e9)
        await live.hear_until(lambda: len(live.passages) == 3)
        assert len(served.music.seen) == 3
        assert len(samples(live)) <= 6 * 16000


async def test_who_plays_nothing_is_ended(served: Served, session: Open):
    served.service.limits = UserConfig(live_idle_s=0.2)
    async with session() as live:
        await live.start(prompt="a", passage=4)
        assert await live.end() == 4408
    (error,) = live.errors
    assert error["error"]["code"] == "idle"
    assert '{"played": seconds}' in error["error"]["message"]
    assert error["request_id"]


async def test_who_never_starts_is_ended(served: Served, session: Open):
    served.service.limits = UserConfig(live_idle_s=0.2)
    async with session() as live:
        assert await live.end() == 4408
    assert not served.music.seen


async def test_a_session_ends_in_time(served: Served, session: Open):
    served.service.limits = UserConfig(max_live_s=0.3)
    async with session() as live:
        await live.start(prompt="a")
        assert await live.end() == 4408
    assert live.errors[0]["error"]["code"] == "session_ended"


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        ("calm piano", "invalid_json", 4400),
        ("[]", "invalid_value", 4422),
        ("{}", "invalid_value", 4422),
        ({"prompt": ""}, "invalid_value", 4422),
        ({"prompt": "a", "tension": 0.5}, "invalid_value", 4422),
        ({"location": "city"}, "invalid_value", 4422),
        ({"tension": 1.5}, "invalid_value", 4422),
        ({"prompt": "a" * 101}, "invalid_value", 4422),
        ({"tension": 0.5, "location": "a" * 101}, "invalid_value", 4422),
        ({"prompt": "a", "passage": 0.5}, "out_of_range", 4422),
        ({"prompt": "a", "duration": 5}, "unknown_field", 4422),
        ({"prompt": "a", "model": "codec"}, "model_not_found", 4404),
        (b"\xff\x00", "invalid_json", 4400),
    ],
)
async def test_a_bad_start_ends_it(
    served: Served, session: Open, message: Any, code: str, status: int
):
    async with session() as live:
        sent = json.dumps(message) if isinstance(message, dict) else message
        await live.connection.send(sent)
        assert await live.end() == status
    (error,) = live.errors
    assert error["error"]["code"] in (code, "invalid_value")
    assert error["error"]["message"]
    assert not served.music.seen


async def test_a_passage_leaves_room_for_what_was_before(
    served: Served, session: Open, monkeypatch: pytest.MonkeyPatch
):
    voice = await served.service.registry.get_model_with_codec(
        served.service.registry.models["music"]
    )  # type: ignore[arg-type]
    monkeypatch.setattr(type(voice.language_model), "max_seconds", 10.0, raising=False)
    async with session() as live:
        await live.say(prompt="a", passage=6)
        assert await live.end() == 4422
    assert "1 to 5 s" in live.errors[0]["error"]["message"]


async def test_a_bad_message_later_does_not(served: Served, session: Open):
    served.service.limits = FAR
    async with session() as live:
        await live.start(prompt="a", passage=1)
        for bad in ({"prompt": "b", "stop": True}, {"played": -1}, {"louder": True}, {"stop": 0}):
            await live.say(**bad)
        await live.say(prompt="c")
        await live.hear_until(lambda: len(live.errors) == 4)
        await live.hear_until(lambda: live.passages and live.passages[-1]["prompt"] == "c")
        await live.say(stop=True)
        assert await live.end() == 1000
    unknown = live.errors[2]["error"]
    assert unknown["code"] == "unknown_field"
    assert "played" in unknown["message"]


async def test_many_in_a_row_do(served: Served, session: Open):
    async with session() as live:
        await live.start(prompt="a", passage=1)
        for _ in range(10):
            await live.say(louder=True)
        assert await live.end() == 4400
    assert live.errors[-1]["error"]["code"] == "invalid_messages"


async def test_a_message_that_is_too_large_is_not_read(served: Served, session: Open):
    served.service.limits = UserConfig(max_body_bytes=50)
    async with session() as live:
        await live.say(prompt="a" * 60)
        assert await live.end() == 4413


async def outstanding(served: Served) -> dict[str, float]:
    await served.service.ledger.wait_for_calls()
    return served.service.ledger.methods.accounts.compute_backlog()


async def nothing_is_held(served: Served) -> bool:
    return not await outstanding(served) and not served.service.live.open


@pytest.mark.parametrize("held_at", ["held", "gate"])
async def test_who_leaves_stops_the_model(served: Served, session: Open, held_at: str):
    setattr(served.music, held_at, asyncio.Event())
    async with session() as live:
        await live.start(prompt="a", passage=4)
        await eventually(lambda: served.music.seen)
        assert (await outstanding(served))["music"] == 8.0
        live.connection.transport.abort()  # without a word
    await until_async(lambda: nothing_is_held(served))
    assert len(served.music.seen) == 1
    assert served.music.answers[-1].cancelled


@pytest.mark.parametrize("fails_at", [0, 1])
async def test_a_model_that_fails_ends_it(served: Served, session: Open, fails_at: int):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), fails_at
    async with session() as live:
        await live.start(prompt="a")
        assert await live.end() == 4500
    assert live.errors[-1]["error"]["code"] == "generation_failed"
    await until_async(lambda: nothing_is_held(served))


async def test_a_replica_that_is_lost_does_not(
    served: Served, codec: Codec, session: Open, monkeypatch: pytest.MonkeyPatch
):
    served.service.limits = FAR
    remote, losses = served.music.remote, iter([True])

    async def lost(answers: Answers) -> AsyncIterator[Any]:
        async for answer in answers:
            yield answer
            raise ActorDiedError

    def losing(*args: Any, **carried: Any) -> Answers:
        answers = remote(*args, **carried)
        return Answers(lost(answers)) if next(losses, False) else answers

    monkeypatch.setattr(served.music, "remote", losing)
    async with session() as live:
        await live.start(prompt="a", seed=5, passage=1.5)
        await live.hear_until(lambda: len(live.passages) == 3)
    assert [one.frames for one in served.music.seen[:3]] == [75, 75, 150]
    heard = samples(live)
    wanted = made_of(codec, passage_codes(5, 75, 3))[: len(heard)]
    assert np.abs(heard - wanted).max() <= 1


async def test_what_nobody_foresaw_ends_it_too(served: Served, session: Open):
    served.music.error = KeyError("nobody")
    async with session() as live:
        await live.start(prompt="a")
        assert await live.end() == 4500
    assert live.errors[-1]["error"]["code"] == "internal_error"
    assert "nobody" not in live.errors[-1]["error"]["message"]


async def test_the_server_ends_and_so_does_it(served: Served):
    served.music.gate = asyncio.Event()
    async with listening(served.app) as address:
        connection = await connect(address + "/v1/live")
        live = Client(connection)
        await live.start(prompt="a")
        await live.hear_until(lambda: live.passages)
    assert await live.end() == 1012
    assert await nothing_is_held(served)
    await connection.close()


async def test_the_embedded_codec_joins_passages(session: Open):
    """As the shipped models have it: passages against one decode of their codes."""
    codec = Codec.load("bundle:tiny/codec", device="cpu")
    served = real_codec(codec)
    async with listening(served) as address, connect(address + "/v1/live") as connection:
        live = Client(connection)
        await live.start(prompt="a", seed=100, passage=1.1)
        await live.hear_until(lambda: len(live.passages) == 4)
        await live.say(stop=True)
        assert await live.end() == 1000
    await served.state.service.ledger.close()
    heard = samples(live)
    frame = int(codec.info.sample_rate / codec.info.frame_rate)
    codes = passage_codes(100, 55, len(live.passages))[:, : len(heard) // frame]
    wanted = made_of(codec, codes)
    assert len(heard) == len(wanted)
    assert np.abs(heard - wanted).max() <= 1
    assert heard.std() > 1


def real_codec(codec: Codec) -> FastAPI:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
    ]
    handles = {"music": FakeLanguageModel(), "codec": Real(codec), "media": Media()}
    return create_app(serving(models, handles, FAR))
