"""Clips while they are made: files that grow, and events."""

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from starlette.types import Message

from api.audio import codes_file
from api.respond import responses
from engine.codec import Codec
from engine.errors import GenerationFailed, InvalidRequest
from engine.params import Codes
from graph.calls import merge_streams
from tests.api.asgi import asgi
from tests.api.conftest import Served
from tests.api.test_generations import samples
from tests.api.test_uploads import RATE

PATH = "/v1/generations"
BODY = {"prompt": "a", "duration": 3.3, "seed": 5, "cache": False}
EVENTS = {"accept": "text/event-stream"}


def read(file: bytes) -> tuple[np.ndarray, int]:
    audio, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    return audio, rate


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("name", ["wav", "pcm"])
@pytest.mark.parametrize("more", [{}, {"fade_in": 1.5, "fade_out": 0.7}, {"sample_rate": 44100}])
async def test_a_growing_file_is_the_whole_one(served: Served, name: str, more: dict[str, Any]):
    body = BODY | more | {"format": name}
    whole = await served.http.post(PATH, json=body)
    growing = await served.http.post(PATH, json=body | {"stream": True})
    assert growing.status_code == 200, growing.text
    assert "content-length" not in growing.headers
    for header in ("content-type", "x-seed", "x-model"):
        assert growing.headers[header] == whole.headers[header]
    assert len(growing.content) == len(whole.content)
    head = len(whole.content) - int(3.3 * body.get("sample_rate", RATE)) * 2
    assert growing.content[:head] == whole.content[:head]
    steps = [np.frombuffer(one.content[head:], "<i2").astype(int) for one in (whole, growing)]
    assert np.abs(steps[0] - steps[1]).max() <= 1
    assert np.abs(steps[0]).max() > 100


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "ogg", "aac"])
async def test_every_format_streams(served: Served, name: str):
    whole = await served.http.post(PATH, json=BODY | {"format": name})
    growing = await served.http.post(PATH, json=BODY | {"format": name, "stream": True})
    assert (whole.status_code, growing.status_code) == (200, 200)
    assert growing.headers["content-type"] == whole.headers["content-type"]
    assert len(growing.content) == pytest.approx(len(whole.content), rel=0.1)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("frames", [2, 60])
@pytest.mark.parametrize("rate", [RATE, 24000])
async def test_a_continuation_streams(
    served: Served, codec: Codec, include: bool, frames: int, rate: int
):
    """Also where the codec gives nothing for so few frames, or all that it gives is left out."""
    prompt = np.full((4, frames), 3)
    file = codes_file.write_codes(Codes.pack(prompt), codec.info, frames * 320, "codec")
    data = {"prompt": "a", "duration": "2", "seed": "5", "include_prompt": str(include).lower()}
    data["sample_rate"] = str(rate)
    whole, growing = [
        await served.http.post(PATH, data=data | more, files={"continue_from": file})
        for more in ({}, {"stream": "true"})
    ]
    assert growing.status_code == 200, growing.text
    (wanted, _), (made, given) = (read(one.content) for one in (whole, growing))
    assert given == rate
    left = RATE * 2 if include else RATE * 2 - frames * 320
    assert made.shape == wanted.shape == (left * rate // RATE,)
    assert np.abs(made - wanted).max() <= 1 / 32768


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_what_fails_before_the_first_sample_is_an_error_answer(
    served: Served, codec: Codec, headers: dict[str, str]
):
    """Also where the sound of a prompt could have been sent before."""
    served.music.error = InvalidRequest("the text has 300 tokens", "text")
    prompt = codes_file.write_codes(Codes.pack(np.zeros((4, 60), int)), codec.info, 1, "codec")
    sent = {"data": {"prompt": "a", "stream": "true"}, "files": {"continue_from": prompt}}
    response = await served.http.post(PATH, headers=headers, **sent)
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "the text has 300 tokens"


async def test_what_fails_later_ends_a_file_before_its_length(served: Served):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    with pytest.raises(RuntimeError, match="already started") as raised:
        await cut(served, BODY | {"stream": True})
    assert isinstance(raised.value.__cause__, GenerationFailed)


async def cut(served: Served, body: dict[str, Any]) -> None:
    """Send a body to the application itself, which raises what a server would cut a stream for."""
    transport = httpx.ASGITransport(served.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await http.post(PATH, json=body)


async def test_events_tell_how_far_clips_are(served: Served, codec: Codec):
    body = BODY | {"n": 2, "return_codes": True, "decoder": "mbd"}
    response = await served.http.post(PATH, json=body, headers=EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    told = events(response.text)
    for clip in (0, 1):
        mine = [data for name, data in told if name == "progress" and data["clip"] == clip]
        made = [one["done"] for one in mine if one["stage"] == "generate"]
        assert made == [50, 100, 150, 165]
        assert [one["done"] for one in mine if one["stage"] == "decode"] == [1, 2]
        (audio,) = [data for name, data in told if name == "audio" and data["clip"] == clip]
        assert samples(base64.b64decode(audio["audio"])).shape == (1, 165 * 320)
    name, done = told[-1]
    assert (name, done["seed"], done["model"], done["format"]) == ("done", 5, "music", "wav")
    assert [(one["variation"], one["duration"]) for one in done["clips"]] == [(0, 3.3), (1, 3.3)]
    assert done["clips"][1]["codes"] == np.full((4, 165), 6).tolist()


async def test_events_bring_audio_while_it_is_made(served: Served):
    response = await served.http.post(PATH, json=BODY | {"stream": True, "n": 2}, headers=EVENTS)
    told = events(response.text)
    assert {name for name, _ in told[:-1]} == {"audio"}
    assert told[-1][0] == "done"
    for clip in (0, 1):
        parts = [data["audio"] for name, data in told[:-1] if data["clip"] == clip]
        assert len(parts) >= 4
        file = b"".join(map(base64.b64decode, parts))
        alone = await served.http.post(PATH, json=BODY | {"stream": True, "seed": 5 + clip})
        assert np.abs(samples(file) - samples(alone.content)).max() <= 1 / 32768


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_is_an_event_too(served: Served, stream: bool):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    response = await served.http.post(PATH, json=BODY | {"stream": stream}, headers=EVENTS)
    assert response.status_code == 200
    name, told = events(response.text)[-1]
    assert name == "error"
    assert told["error"]["code"] == "generation_failed"
    assert told["request_id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [PATH, "/v1/audio/speech"])
async def test_a_comment_comes_where_no_event_does(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: str, stream: bool
):
    """What fails after it is an event, since the answer has begun; a model's wait is its cause."""
    monkeypatch.setattr(responses, "KEEP_ALIVE_S", 0.01)
    held = served.music.held = asyncio.Event()
    speech = {"input": "a", "model": "music", "stream_format": "sse", "response_format": "wav"}
    body = BODY | {"stream": stream} if path == PATH else speech
    content, never = iter([json.dumps(body).encode()]), asyncio.Event()

    async def receive() -> Message:
        for part in content:
            return {"type": "http.request", "body": part}
        await never.wait()
        raise AssertionError

    comments = 0

    def sent(message: Message) -> None:
        nonlocal comments
        comments += message.get("body") == b": keep-alive\n\n"
        if comments == 2:
            held.set()

    headers = {"content-type": "application/json", **EVENTS}
    async with asyncio.timeout(20):
        answer = await asgi(served.app, path, headers, receive, sent)
    text = b"".join(message.get("body", b"") for message in answer).decode()
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert text.endswith("\n\n")
    assert ("done" if path == PATH else "speech.audio.done") in text.split("\n\n")[-2]


async def numbers(count: int, ended: list[int], error: Exception | None = None):
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
        if error:
            raise error
        await asyncio.sleep(0 if count < 100 else 60)
    finally:
        ended.append(count)


async def test_merging_ends_every_source():
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    ended: list[int] = []
    assert sorted([n async for n in merge_streams([numbers(2, ended), numbers(3, ended)])]) == [
        0, 0, 1, 1, 2,
    ]  # fmt: skip
    assert sorted(ended) == [2, 3]
    ended.clear()
    with pytest.raises(KeyError):
        async for _ in merge_streams([numbers(100, ended), numbers(1, ended, KeyError())]):
            pass
    assert sorted(ended) == [1, 100]
    ended.clear()
    source = merge_streams([numbers(100, ended), numbers(101, ended)])
    await anext(source)
    await source.aclose()
    assert sorted(ended) == [100, 101]
    assert not complaints


async def test_uploads_are_read_before_events_begin(served: Served):
    data = {"prompt": "a", "model": "hum"}
    response = await served.http.post(PATH, data=data, files={"melody": b"x"}, headers=EVENTS)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_audio"
