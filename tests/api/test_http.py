"""The HTTP surface: what it accepts, what it refuses, and in which words."""

import io
import re
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import soundfile
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError

import api
from api.audio.output import FORMATS, Normalize
from api.readiness import DeploymentState
from api.settings import Decoder, UserConfig
from engine.errors import GenerationFailed, InvalidRequest
from engine.params import GenerationParams
from tests.api.conftest import Server


def assert_error(response: httpx.Response, status: int, code: str, param: str | None, say: str):
    assert response.status_code == status, response.text
    body = response.json()
    assert body.keys() == {"error", "request_id"}
    assert body["request_id"]
    error = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert (error["code"], error["param"]) == (code, param)
    assert say in error["message"]
    assert "Traceback" not in response.text


async def test_a_wav_file_comes_back(server: Server):
    response = await server.generate(duration=2.5, seed=11)
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["x-seed"] == "11"
    assert response.headers["x-model"] == "music"
    stages = dict(s.split(";dur=") for s in response.headers["server-timing"].split(", "))
    assert list(stages) == ["wait", "generate", "decode", "total"]
    assert float(stages["generate"]) == 200.0
    audio, rate = soundfile.read(io.BytesIO(response.content), dtype="int16")
    assert (len(audio), rate) == (40000, 16000)
    assert (audio.max(), audio.min()) == (32767, -32768), "clipped, not scaled"


async def test_the_defaults_are_audiocrafts(server: Server):
    response = await server.generate()
    (params,) = server.music.seen
    assert params == GenerationParams(
        "calm piano", 500, int(response.headers["x-seed"]), 1.0, 250, 0.0, 3.0
    )


async def test_every_parameter_arrives(server: Server):
    await server.generate(
        duration=1, temperature=0.5, top_k=9, top_p=0.3, cfg_coef=7, seed=5, model="music"
    )
    assert server.music.seen == [GenerationParams("calm piano", 50, 5, 0.5, 9, 0.3, 7)]


async def test_an_integer_may_have_a_point(server: Server):
    content = b'{"text": "calm piano", "duration": 1, "seed": 5.0, "top_k": 9.0}'
    headers = {"content-type": "application/json"}
    await server.http.post("/generate/music", content=content, headers=headers)
    assert [(one.seed, one.top_k) for one in server.music.seen] == [(5, 9)]


async def test_the_default_duration_is_within_the_limit(server: Server):
    server.service.limits = UserConfig(max_duration_s=2)
    assert (await server.generate()).status_code == 200
    sound = await server.http.post("/v1/sound-generation", json={"text": "thunder"})
    assert sound.status_code == 200
    assert [one.frames for one in server.music.seen] == [100]


async def test_a_file_has_a_name_to_save_it_by(server: Server):
    response = await server.generate(duration=1, seed=5)
    assert response.headers["content-disposition"] == 'attachment; filename="clip-5.wav"'


async def test_without_a_seed_one_is_drawn(server: Server):
    seeds = {(await server.generate(duration=1)).headers["x-seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("body", "param", "say"),
    [
        ({"text": ""}, "text", "must not be empty"),
        ({"text": " \n"}, "text", "must not be empty"),
        ({"text": 3}, "text", "valid string"),
        ({"text": ["a"]}, "text", "valid string"),
        ({"text": "x" * 501}, "text", "501 characters; allowed: 1 to 500"),
        ({"duration": 0}, "duration", "allowed: from 0.02 to 3600"),
        ({"duration": 0.01}, "duration", "from 0.02 to 3600"),
        ({"duration": 30.1}, "duration", "from 0.02 to 30 s"),
        ({"duration": "10"}, "duration", "valid number"),
        ({"duration": True}, "duration", "valid number"),
        ({"temperature": -0.1}, "temperature", "from 0 to 10"),
        ({"temperature": 11}, "temperature", "from 0 to 10"),
        ({"temperature": 1e-9}, "temperature", "0 (greedy) or at least 0.01"),
        ({"top_k": -1}, "top_k", "from 0 to 65536"),
        ({"top_k": 1.5}, "top_k", "valid integer"),
        ({"top_p": 1.01}, "top_p", "from 0 to 1"),
        ({"cfg_coef": 21}, "cfg_coef", "from 0 to 20"),
        ({"seed": -1}, "seed", "from 0 to 9223372036854775807"),
        ({"seed": 2**63}, "seed", "from 0 to 9223372036854775807"),
    ],
)
async def test_out_of_range(server: Server, body: dict[str, Any], param: str, say: str):
    server.service.limits = UserConfig(max_text_chars=500)
    assert_error(await server.generate(**body), 422, "invalid_value", param, say)
    assert server.music.seen == []


@pytest.mark.parametrize(
    ("content", "status", "code", "param", "say"),
    [
        (b"{", 400, "invalid_json", None, "not JSON"),
        (b"", 422, "missing_field", None, "required"),
        (b"[]", 422, "invalid_value", None, "valid dictionary"),
        (b"{}", 422, "missing_field", "text", "text: Field required"),
        (b'{"text": "a", "duration": NaN}', 422, "invalid_value", "duration", "finite"),
        (b'{"text": "a", "duration": 1e999}', 422, "invalid_value", "duration", "finite"),
        (b'{"text": "\\ud800"}', 422, "invalid_value", "text", "surrogates"),
        (
            b'{"text": "a", "txt": "b"}',
            422,
            "unknown_field",
            "txt",
            "valid keys: temperature, top_k",
        ),
        (
            b'{"text": "a", "\\ud800": 1}',
            422,
            "unknown_field",
            "\\ud800",
            "valid keys: temperature",
        ),
        (b"\xff\xfe", 400, "invalid_json", None, "not JSON"),
        (b'"' + b"x" * 2000, 413, "body_too_large", None, "above 2000 bytes"),
        (b"[" * 1900, 400, "invalid_body", None, "error parsing the body"),
    ],
)
async def test_bad_bodies(
    server: Server, content: bytes, status: int, code: str, param: str, say: str
):
    headers = {"content-type": "application/json"}
    response = await server.http.post("/generate/music", content=content, headers=headers)
    assert_error(response, status, code, param, say)


async def test_a_large_body_without_a_length_is_refused(server: Server):
    async def endless():
        while True:
            yield b"x" * 1000

    headers = {"content-type": "application/json"}
    response = await server.http.post("/generate/music", content=endless(), headers=headers)
    assert_error(response, 413, "body_too_large", None, "above 2000 bytes")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "x"])
async def test_another_content_type(server: Server, kind: str | None):
    headers = {"content-type": kind} if kind else {}
    response = await server.http.post("/generate/music", content=b'{"text":"a"}', headers=headers)
    assert_error(response, 415, "unsupported_content_type", None, "send application/json")


async def test_a_charset_is_no_other_type(server: Server):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    response = await server.http.post("/generate/music", content=b'{"text":"a"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("where", "model", "say"),
    [
        ("music", "nope", "no music model 'nope'; valid: music"),
        ("music", "sound", "no music model 'sound'; valid: music"),
        ("audio", "codec", "no sound model 'codec'; valid: sound"),
    ],
)
async def test_unknown_model(server: Server, where: str, model: str, say: str):
    assert_error(await server.generate(where, model=model), 404, "model_not_found", "model", say)


async def test_sound_has_its_own_model(server: Server):
    assert (await server.generate("audio", duration=10)).headers["x-model"] == "sound"


async def test_unknown_path_and_method(server: Server):
    assert_error(await server.http.get("/nope"), 404, "not_found", None, "Not Found")
    response = await server.http.get("/generate/music")
    assert_error(response, 405, "method_not_allowed", None, "Method Not Allowed")
    assert response.headers["allow"] == "POST"
    response = await server.http.put("/v1/jobs/one")
    assert_error(response, 405, "method_not_allowed", None, "Method Not Allowed")
    assert response.headers["allow"] == "DELETE, GET", "of every route of the path"
    response = await server.http.post("/static-offline-docs/favicon.png")
    assert_error(response, 405, "method_not_allowed", None, "Method Not Allowed")


async def test_the_callers_request_id_is_kept(server: Server):
    response = await server.http.get("/nope", headers={"x-request-id": "mine"})
    assert response.json()["request_id"] == "mine"


@pytest.mark.parametrize(
    ("error", "status", "code", "say"),
    [
        (
            RayTaskError("f", "tb", InvalidRequest("bad text", "text")).as_instanceof_cause(),
            422,
            "invalid_value",
            "bad text",
        ),
        (GenerationFailed("secret"), 500, "generation_failed", "the model failed"),
        (ActorDiedError(), 503, "model_unavailable", "try again"),
        (RayTaskError("f", "tb", KeyError("secret")), 500, "internal_error", "the server failed"),
        (DeploymentUnavailableError("music"), 503, "model_unavailable", "try again"),
        (ZeroDivisionError("secret"), 500, "internal_error", "the server failed"),
    ],
)
async def test_errors_of_a_model(
    server: Server, error: Exception, status: int, code: str, say: str
):
    server.music.error = error
    response = await server.generate()
    param = "text" if isinstance(error, InvalidRequest) else None
    assert_error(response, status, code, param, say)
    assert "secret" not in response.text


async def test_limits_change_while_running(server: Server):
    server.service.limits = UserConfig(max_duration_s=1)
    assert_error(await server.generate(duration=2), 422, "invalid_value", "duration", "to 1 s")


async def test_models_in_openais_shape(server: Server):
    listing = (await server.http.get("/v1/models")).json()
    assert listing["object"] == "list"
    assert [m["id"] for m in listing["data"]] == ["music", "sound", "codec"]
    assert listing["data"][1] == {
        "id": "sound", "object": "model", "created": server.service.started_at,
        "owned_by": "facebook", "kind": "audiogen", "role": "sound", "license": "x",
        "codec": "codec", "melody": False,
    }  # fmt: skip
    assert [m["owned_by"] for m in listing["data"]] == ["bundle", "facebook", "local"]
    assert (await server.http.get("/v1/models/sound")).json() == listing["data"][1]
    response = await server.http.get("/v1/models/nope")
    assert_error(response, 404, "model_not_found", "model", "valid: music, sound, codec")


async def test_models_say_what_they_follow(server: Server):
    async def melody(name: str) -> bool | None:
        told: bool | None = (await server.http.get(f"/v1/models/{name}")).json()["melody"]
        return told

    server.music.melody = True
    server.states["music"] = DeploymentState("HEALTHY", 0)
    assert await melody("music") is None, "it sleeps"
    server.states["music"] = DeploymentState("HEALTHY", 1)
    server.codec.cardinality = 1024
    assert await melody("music") is None, "it does not work"
    server.codec.cardinality = 512
    assert await melody("music") is True
    server.states["music"] = DeploymentState("HEALTHY", 0)
    assert await melody("music") is True, "it is known by now"
    assert [await melody(name) for name in ("sound", "codec")] == [False, False]


SONG = {"sections": [{"name": "a", "prompt": "x" * 11, "bars": 1}]}
LONG = {"duration": 3}


async def test_the_docs_need_no_other_server(server: Server):
    page = (await server.http.get("/docs")).text
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/"), link
        assert (await server.http.get(link)).status_code == 200


async def test_models_are_picked_by_their_role(server: Server):
    settings = server.service.registry.models
    music = settings["music"].model_copy(update={"role": "sound"})
    server.service.registry.models["music"] = music
    response = await server.generate()
    assert_error(response, 404, "model_not_found", "model", "no music: none is configured")


async def test_limits_have_the_table_of_formats(server: Server):
    formats = (await server.http.get("/v1/limits")).json()["formats"]
    assert list(formats) == list(FORMATS)
    assert formats["opus"] == {
        "title": "Opus", "media_type": "audio/ogg; codecs=opus", "sample_formats": ["s16"],
        "rates": [48000], "bitrates": [16, 256], "bitrate": 96,
    }  # fmt: skip


def test_the_playground_offers_what_the_server_knows():
    page = (Path(api.__file__).parent / "playground/index.html").read_text()
    for field, known in (("normalize", get_args(Normalize)), ("decoder", get_args(Decoder))):
        (select,) = re.findall(rf'<select id="{field}".*?</select>', page, re.DOTALL)
        offered = set(re.findall(r'<option value="(\w+)"', select))
        assert offered - {"both"} <= set(known)
