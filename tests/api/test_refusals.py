"""Tests that a request that is refused asks no model, so that it wakes none that sleeps."""

from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from api.settings import UserConfig
from tests.api.conftest import Served
from tests.api.test_uploads import wav

SECTION = {"name": "a", "prompt": "b", "bars": 1}
SONG = "/v1/workflows/song"
CLIPS = "/v1/generations"
CODES = {"codes_file": safetensors.save({"codes": np.zeros((4, 150), np.int16)})}
BROKEN = {"audio_file": b"not audio"}


class Asleep:
    """A handle that is not to be touched."""

    def __getattr__(self, name: str):
        raise AssertionError(f"{name} would start a replica")


def let_models_sleep(served: Served) -> None:
    registry = served.service.registry
    asleep = dict.fromkeys(registry.models, Asleep())
    registry.handles = {**registry.handles, **asleep}
    served.service.pipeline._handles = registry.handles


def song(**fields: Any) -> dict[str, Any]:
    return {"json": {"sections": [SECTION]} | fields}


def clip(**fields: Any) -> dict[str, Any]:
    return {"json": {"prompt": "a"} | fields}


def form(files: dict[str, bytes], **fields: str) -> dict[str, Any]:
    return {"data": fields, "files": {name: (name, data) for name, data in files.items()}}


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        (SONG, song(sections=[SECTION | {"bars": 40}]), "in whole bars it lasts 80 s"),
        (SONG, song(sections=[SECTION] * 5), "the song lasts 10 s; allowed: up to 9 s"),
        (SONG, song(sections=[SECTION] * 2, crossfade_beats=3), "sections.0 has 4"),
        (SONG, song(effects=[{"prompt": "a", "at": 1, "duration": 3}]), "the song at 2 s"),
        (SONG, song(effects=[{"prompt": "a", "at": 0, "duration": 31}]), "up to 30 s"),
        (
            SONG,
            song(sections=[SECTION] * 5, distribution={"bandwidth": 0.9}),
            "the song lasts 10 s",
        ),
        (SONG, song(effects=[{"prompt": "a", "at": 0}], effects_model="none"), "valid: music"),
        ("/v1/workflows/podcast", {"json": {"theme": "sea"}}, "it lasts 33 s; allowed"),
        (CLIPS, clip(stream=True, normalize="peak"), "normalize: this value needs the whole clip"),
        (CLIPS, clip(stream=True, trim_silence=True), "trim_silence: this value"),
        (CLIPS, clip(stream=True, decoder="mbd"), "decoder: this value needs the whole clip"),
        (CLIPS, clip(stream=True, n=2), "accept text/event-stream"),
        (CLIPS, clip(stream=True, return_codes=True), "accept text/event-stream"),
        (CLIPS, clip(start=1), "need the file continue_from"),
        (CLIPS, clip(model="sound", decoder="mbd"), "is not configured for 'sound'"),
        (CLIPS, form({"melody": b"no"}, prompt="a", model="hum"), "cannot be read"),
        (CLIPS, form({"continue_from": b"no"}, prompt="a"), "cannot be read"),
        (CLIPS, form({"continue_from": wav(12)}, prompt="a"), "has 12 s already"),
        (
            CLIPS,
            form({"continue_from": CODES["codes_file"]}, prompt="a", duration="3"),
            "3 s already",
        ),
        ("/v1/codec/encode", form(BROKEN), "cannot be read"),
        (
            "/v1/codec/encode",
            form({"audio_file": wav(1)}, codebooks="1", bandwidth="1"),
            "not both",
        ),
        ("/v1/mbd/regenerate", form(BROKEN), "cannot be read"),
        ("/v1/mbd/regenerate", form({"audio_file": wav(31)}), "the file has 31 s"),
    ],
)
async def test_a_refused_request_asks_no_model(
    served: Served, path: str, sent: dict[str, Any], says: str
):
    served.service.limits = UserConfig(max_song_s=9)
    let_models_sleep(served)
    answer = await served.http.post(path, **sent)
    assert answer.status_code in (404, 422), answer.text
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        (CLIPS, clip(extend_stride=1), "extend_stride: 1 s; allowed: at least 3 s"),
        (CLIPS, form({"melody": wav(1)}, prompt="a", model="music"), "models that do: hum"),
        (SONG, song(distribution={"bandwidth": 1}), "distribution.bandwidth: 1 kbit/s"),
        ("/v1/mbd/decode", form(CODES), "the codes have 3 s of audio; allowed: up to 2 s"),
        (CLIPS, clip(n=6, sample_rate=96000, sample_format="f32"), "of memory; allowed"),
    ],
)
async def test_what_a_model_has_told_before_is_not_asked_again(
    served: Served, path: str, sent: dict[str, Any], says: str
):
    """These refusals depend on the model, which must have run since the ingress started."""
    registry = served.service.registry
    await registry.check_models(set())
    await registry.describe_codec(registry.models["diffusion"])
    limits = {"max_duration_s": 2} if path == "/v1/mbd/decode" else {"max_held_bytes": 100_000}
    served.service.limits = UserConfig(**limits)
    let_models_sleep(served)
    answer = await served.http.post(path, **sent)
    assert answer.status_code in (413, 422), answer.text
    assert says in answer.json()["error"]["message"]


async def test_a_style_transfer_asks_no_model_after_the_first_that_follows_melodies(
    served: Served,
):
    registry = served.service.registry
    registry.models = dict(sorted(registry.models.items(), key=lambda one: one[0] != "hum"))
    asleep = {name: Asleep() for name in ("music", "sound", "diffusion")}
    registry.handles = {**registry.handles, **asleep}
    sent = form({"content": wav(1)}, style="jazz")
    answer = await served.http.post("/v1/workflows/style-transfer", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "hum"
