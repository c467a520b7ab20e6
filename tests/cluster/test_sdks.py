"""OpenAI's and ElevenLabs' own clients, pointed at this server."""

from pathlib import Path

import openai
import pytest
import soundfile
from elevenlabs.client import ElevenLabs

from engine import media
from engine.params import MediaLimits
from tests.cluster.conftest import Deployed

LIMITS = MediaLimits(10**8, 60, 2)


@pytest.fixture
def client(deployed: Deployed) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{deployed.http.base_url}/v1", api_key="none", max_retries=0)


def test_openais_client_lists_models(client: openai.OpenAI):
    listed = {model.id for model in client.models.list()}
    assert {"music", "sound", "codec"} <= listed
    assert client.models.retrieve("music").object == "model"


@pytest.mark.parametrize("name", ["wav", "mp3", "flac", "opus", "aac"])
def test_openais_client_gets_a_file(client: openai.OpenAI, name: str, tmp_path: Path):
    speech = client.audio.speech.create(
        model="music", voice="alloy", input="calm piano", response_format=name,
        extra_body={"duration": 2, "seed": 1},
    )  # fmt: skip
    path = tmp_path / f"clip.{name}"
    speech.write_to_file(path)
    made = media.decode(path.read_bytes(), LIMITS)
    assert made.samples / made.sample_rate == pytest.approx(2, abs=0.15)


def test_openais_client_streams(deployed: Deployed, client: openai.OpenAI, tmp_path: Path):
    with client.audio.speech.with_streaming_response.create(
        model="music", voice="alloy", input="calm piano", response_format="wav",
        extra_body={"duration": 30},
    ) as response:  # fmt: skip
        read = response.iter_bytes(4096)
        parts = [next(read)]
        assert deployed.load().running == 1, "the rest is still being made"
        parts += read
    (tmp_path / "clip.wav").write_bytes(b"".join(parts))
    assert soundfile.info(tmp_path / "clip.wav").duration == 30


def test_openais_client_understands_errors(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as raised:
        client.audio.speech.create(model="tts-1", voice="alloy", input="a")
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError, match="must not be empty"):
        client.audio.speech.create(model="music", voice="alloy", input=" ")


def test_elevenlabs_client_gets_a_sound(deployed: Deployed):
    client = ElevenLabs(base_url=str(deployed.http.base_url).rstrip("/"), api_key="none")
    parts = client.text_to_sound_effects.convert(
        text="rain and thunder", duration_seconds=2, output_format="mp3_44100_128"
    )
    made = media.decode(b"".join(parts), LIMITS)
    assert made.sample_rate == 44100
    assert made.samples / made.sample_rate == pytest.approx(2, abs=0.15)
