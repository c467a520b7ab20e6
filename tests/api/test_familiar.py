"""What OpenAI's and ElevenLabs' clients send; the clients themselves are in tests/cluster."""

import base64
import json

import pytest

from engine import media
from engine.params import MediaLimits
from tests.api.conftest import Served

SPEECH, SOUND = "/v1/audio/speech", "/v1/sound-generation"
LIMITS = MediaLimits(10**8, 60, 2)


def length(file: bytes) -> tuple[float, int]:
    made = media.decode(file, LIMITS)
    return made.samples / made.sample_rate, made.sample_rate


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac", "wav"])
async def test_speech_is_a_file_of_the_format(served: Served, name: str):
    body = {"model": "music", "input": "calm piano", "voice": "alloy", "response_format": name}
    response = await served.http.post(SPEECH, json=body | {"duration": 2, "seed": 4})
    assert response.status_code == 200, response.text
    seconds, _ = length(response.content)
    assert seconds == pytest.approx(2, abs=0.15)
    (params,) = served.music.seen
    assert (params.text, params.seed, params.guidance_scale) == ("calm piano", 4, 3.0)


async def test_speech_as_raw_samples_has_openais_rate(served: Served):
    body = {"model": "music", "input": "a", "voice": {"id": "x"}, "response_format": "pcm"}
    response = await served.http.post(SPEECH, json=body | {"duration": 1})
    assert len(response.content) == 2 * 24000


async def test_speech_as_events(served: Served):
    body = {"model": "sound", "input": "rain", "voice": "x", "duration": 2, "stream_format": "sse"}
    response = await served.http.post(SPEECH, json=body)
    told = [json.loads(line[6:]) for line in response.text.split("\n\n") if line]
    assert {one["type"] for one in told[:-1]} == {"speech.audio.delta"}
    file = b"".join(base64.b64decode(one["audio"]) for one in told[:-1])
    assert length(file)[0] == pytest.approx(2, abs=0.15)
    assert told[-1]["type"] == "speech.audio.done"
    assert told[-1]["usage"] == {"input_tokens": 4, "output_tokens": 100, "total_tokens": 104}


async def test_a_sound_by_elevenlabs_parameters(served: Served):
    body = {"text": "thunder", "duration_seconds": 1.5, "prompt_influence": 0.5}
    response = await served.http.post(SOUND, json=body, params={"output_format": "mp3_22050_64"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/mpeg"
    assert response.headers["x-model"] == "sound"
    seconds, rate = length(response.content)
    assert rate == 22050
    assert seconds == pytest.approx(1.5, abs=0.15)
    body = {"text": "drums", "model_id": "music", "duration_seconds": None}
    response = await served.http.post(SOUND, json=body, params={"output_format": "pcm_16000"})
    assert len(response.content) == 10 * 16000 * 2
    assert served.music.seen[0].guidance_scale == pytest.approx(3)


@pytest.mark.parametrize(
    ("path", "body", "code", "reason"),
    [
        (SPEECH, {"input": " "}, "invalid_value", "not be empty"),
        (SPEECH, {"input": "a" * 101}, "invalid_value", "101 characters"),
        (SPEECH, {"input": "a", "speed": 2}, "invalid_value", "from 1 to 1"),
        (SPEECH, {"input": "a", "response_format": "ogg"}, "invalid_value", "'mp3'"),
        (SPEECH, {"input": "a", "duration": 31}, "invalid_value", "to 30 s"),
        (SPEECH, {"input": "a", "model": "tts-1"}, "model_not_found", "valid: music"),
        (SOUND, {"text": "a", "duration_seconds": 31}, "invalid_value", "duration_seconds: 31"),
        (SOUND, {"text": "a", "prompt_influence": 2}, "invalid_value", "from 0 to 1"),
        (SOUND, {"text": "a", "loop": True}, "invalid_value", "loop"),
        (SOUND, {"text": "a", "loop": 0}, "invalid_value", "loop"),
        (
            f"{SOUND}?output_format=ulaw_8000",
            {"text": "a"},
            "invalid_value",
            "'ulaw_8000' is not valid",
        ),
        (
            f"{SOUND}?output_format=opus_44100",
            {"text": "a"},
            "invalid_value",
            "opus supports 48000",
        ),
        (f"{SOUND}?output_format=mp3_44100_9", {"text": "a"}, "invalid_value", "from 32 to 320"),
    ],
)
async def test_what_is_refused_says_why(
    served: Served, path: str, body: dict[str, object], code: str, reason: str
):
    response = await served.http.post(path, json=body)
    assert response.status_code in (404, 422), response.text
    error = response.json()["error"]
    assert error["code"] == code, error
    assert reason in error["message"]
    assert "output_format" not in path or error["param"] == "output_format"
