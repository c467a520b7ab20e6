"""POST /v1/generations: one clip or several, from texts, melodies and beginnings."""

import base64
import io

import numpy as np
import pytest
import soundfile

from api.audio import codes_file
from api.settings import UserConfig
from engine.codec import Codec
from engine.errors import GenerationFailed
from engine.params import AudioPiece, Codes, CodesPiece
from tests.api.conftest import Media, Real, Served
from tests.api.test_uploads import RATE, wav

PATH = "/v1/generations"


def samples(file: bytes) -> np.ndarray:
    audio, rate = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    assert rate == RATE
    return audio.T


def heard(codec: Codec, codes: np.ndarray) -> np.ndarray:
    (made,) = codec.decode([CodesPiece(Codes.pack(codes))])
    return made.audio.array().clip(-1, 1)


async def test_one_clip_is_a_file(served: Served, codec: Codec):
    body = {"prompt": "calm piano", "duration": 2, "seed": 7, "greedy": True, "extend_stride": 5}
    response = await served.http.post(PATH, json=body | {"guidance_scale": 2.5, "top_k": 9})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "audio/wav"
    assert (response.headers["x-seed"], response.headers["x-model"]) == ("7", "music")
    assert "decode;dur=" in response.headers["server-timing"]
    wanted = heard(codec, np.full((4, 100), 7))
    assert np.abs(samples(response.content) - wanted).max() <= 1 / 32768
    (params,) = served.music.seen
    assert (params.text, params.frames, params.seed) == ("calm piano", 100, 7)
    assert (params.temperature, params.top_k, params.guidance_scale) == (0.0, 9, 2.5)
    assert params.stride_seconds == 5


async def test_prompts_and_variations_are_a_clip_each(served: Served):
    body = {"prompts": ["a", "b"], "n": 3, "duration": 0.1, "seed": 4, "return_codes": True}
    response = await served.http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["seed"], answer["format"]) == ("music", 4, "wav")
    told = [(clip["prompt"], clip["variation"]) for clip in answer["clips"]]
    assert told == [(text, variation) for text in "ab" for variation in range(3)]
    for clip in answer["clips"]:
        assert clip["codes"] == np.full((4, 5), 4 + clip["variation"]).tolist()
        assert samples(base64.b64decode(clip["audio"])).shape == (1, 1600)
        assert (clip["duration"], clip["sample_rate"], clip["channels"]) == (0.1, RATE, 1)


async def test_one_clip_with_its_codes_is_json(served: Served):
    body = {"prompt": "a", "duration": 0.1, "return_codes": True}
    assert len((await served.http.post(PATH, json=body)).json()["clips"]) == 1
    without = await served.http.post(PATH, json={"prompts": ["a", "b"], "duration": 0.1})
    assert "codes" not in without.json()["clips"][0]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("kind", ["audio", "codes"])
async def test_a_clip_goes_on_from_a_file(served: Served, codec: Codec, kind: str, include: bool):
    """Of its part between start and end; `duration` counts what is continued."""
    file = wav(2.0, rate=24000, channels=2)
    audio = await Media().decode.remote(file, UserConfig().build_media_limits(), RATE, 1)
    part = Real(codec)
    if kind == "codes":
        whole = await part.encode.remote(AudioPiece(audio))
        prompt = whole.codes.array()[:, 25:75]
        file = codes_file.write_codes(whole.codes, codec.info, audio.samples, "codec")
    else:
        cut = type(audio).pack(audio.array()[:, RATE // 2 : 3 * RATE // 2], RATE)
        prompt = (await part.encode.remote(AudioPiece(cut))).codes.array()
    data = {"prompt": "a", "duration": "3", "start": "0.5", "end": "1.5", "seed": "9"}
    response = await served.http.post(
        PATH,
        data=data | {"include_prompt": str(include).lower()},
        files={"continue_from": ("x", file)},
    )
    assert response.status_code == 200, response.text
    (params,) = served.music.seen
    assert params.frames == 150
    np.testing.assert_array_equal(params.prompt.array(), prompt)
    codes = np.concatenate([prompt, np.full((4, 100), 9)], axis=1)
    wanted = heard(codec, codes)[:, 0 if include else RATE :]
    assert np.abs(samples(response.content) - wanted).max() <= 1 / 32768


async def test_a_melody_is_followed_by_models_that_can(served: Served):
    file = wav(1.0, rate=44100, channels=2)
    sent = {"data": {"prompt": "a", "model": "hum"}, "files": {"melody": ("x", file)}}
    response = await served.http.post(PATH, **sent)
    assert response.status_code == 200
    assert response.headers["x-melody-stems"] == "separated"
    melody = served.hum.seen[0].melody
    assert (melody.sample_rate, melody.channels, melody.samples) == (RATE, 1, RATE)
    sent["data"]["model"] = "music"
    refused = await served.http.post(PATH, **sent)
    assert refused.status_code == 422
    assert "models that do: hum" in refused.json()["error"]["message"]


async def test_diffusion_decodes_where_it_is_asked_for(served: Served):
    body = {"prompt": "a", "duration": 1, "seed": 3, "decoder": "mbd"}
    response = await served.http.post(PATH, json=body)
    assert (samples(response.content) > 0.99).all()
    (params,) = served.diffusion.seen
    assert (params.seed, params.equalize, params.codes.frames) == (3, True, 50)
    refused = await served.http.post(PATH, json=body | {"model": "sound"})
    assert refused.status_code == 422
    assert "use encodec" in refused.json()["error"]["message"]


async def test_codes_by_diffusion_alone(served: Served, codec: Codec):
    codes = Codes.pack(np.zeros((4, 20), int))
    file = codes_file.write_codes(codes, codec.info, 6000, "codec")
    decoded = await served.http.post("/v1/mbd/decode", files={"codes_file": file})
    assert decoded.status_code == 200, decoded.text
    assert samples(decoded.content).shape == (1, 6000)


async def test_files_by_diffusion_alone(served: Served):
    served.diffusion.codebooks = 2
    made = await served.http.post(
        "/v1/mbd/regenerate", files={"audio_file": wav(0.3)}, data={"seed": "5"}
    )
    assert made.status_code == 200, made.text
    assert made.headers["x-seed"] == "5"
    assert samples(made.content).shape == (1, int(0.3 * RATE))
    params = served.diffusion.seen[-1]
    assert (params.codes.codebooks, params.equalize, params.samples) == (2, False, 4800)


async def test_diffusion_takes_no_more_than_a_request_may_ask_for(served: Served, codec: Codec):
    """Nothing of it runs in pieces, so one long file would hold a replica."""
    file = codes_file.write_codes(Codes.pack(np.zeros((4, 1501), int)), codec.info, 1, "codec")
    decoded = await served.http.post("/v1/mbd/decode", files={"codes_file": file})
    made = await served.http.post("/v1/mbd/regenerate", files={"audio_file": wav(31)})
    for response in (decoded, made):
        assert response.status_code == 422, response.text
        assert "up to 30 s" in response.json()["error"]["message"]
    assert not served.diffusion.seen


async def test_one_failure_ends_the_request_and_says_so(served: Served):
    served.music.error = GenerationFailed("not a number")
    response = await served.http.post(PATH, json={"prompts": ["a", "b"]})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "generation_failed"


def form(files: dict[str, bytes], **data: str) -> dict[str, object]:
    return {"data": {"prompt": "a"} | data, "files": files}


@pytest.mark.parametrize(
    ("sent", "status", "code", "reason"),
    [
        ({"json": {}}, 422, "invalid_value", "either prompt or prompts"),
        ({"json": {"prompt": "a", "prompts": ["b"]}}, 422, "invalid_value", "either"),
        ({"json": {"prompts": []}}, 422, "invalid_value", "at least 1"),
        ({"json": {"prompts": ["a", " "]}}, 422, "invalid_value", "not be empty"),
        ({"json": {"prompts": ["a" * 101]}}, 422, "invalid_value", "101 characters"),
        ({"json": {"prompts": ["a", "b"], "n": 4}}, 422, "invalid_value", "8 clips"),
        ({"json": {"prompt": "a", "n": 0}}, 422, "invalid_value", "from 1 to 64"),
        ({"json": {"prompt": "a", "duration": 31}}, 422, "invalid_value", "to 30 s"),
        ({"json": {"prompt": "a", "extend_stride": 0}}, 422, "invalid_value", "above 0"),
        ({"json": {"prompt": "a", "decoder": "x"}}, 422, "invalid_value", "'encodec' or 'mbd'"),
        ({"json": {"prompt": "a", "melody": "x"}}, 422, "unknown_field", "melody"),
        ({"json": {"prompt": "a", "start": 1}}, 422, "missing_field", "continue_from"),
        ({"json": {"prompt": "a", "model": "codec"}}, 404, "model_not_found", "music, hum"),
        (form({"continue_from": b"x"}), 422, "invalid_audio", "cannot be read"),
        (form({"melody": b""}, model="hum"), 422, "invalid_audio", "empty"),
        (form({"continue_from": wav(1)}, start="2"), 422, "invalid_value", "has 1 s"),
        ({"json": {"prompt": "a", "format": "aiff"}}, 422, "invalid_value", "'mp3'"),
        (
            {"json": {"prompt": "a", "format": "mp3", "sample_rate": 96000}},
            422,
            "invalid_value",
            "mp3 supports 8000",
        ),
        (
            {"json": {"prompt": "a", "stream": True, "decoder": "mbd"}},
            422,
            "cannot_stream",
            "decoder: ",
        ),
        *(
            ({"json": {"prompt": "a", "stream": True} | more}, 422, "cannot_stream", reason)
            for more, reason in [
                ({"normalize": "peak"}, "normalize: "),
                ({"trim_silence": True}, "trim_silence: "),
                ({"n": 2}, "accept text/event-stream"),
                ({"return_codes": True}, "accept text/event-stream"),
            ]
        ),
        (
            {"json": {"prompt": "a", "normalize": "loudness", "duration": 0.3}},
            422,
            "invalid_value",
            "below 0.4 s has no loudness",
        ),
        *(
            (
                form({"continue_from": wav(12)}, stream=stream, include_prompt=include),
                422,
                "invalid_value",
                "has 12 s already",
            )
            for stream in ("true", "false")
            for include in ("true", "false")
        ),
        (form({"other": b"x"}), 422, "unknown_field", "continue_from, melody"),
        (form({"melody": wav(1)}, n="x"), 422, "invalid_value", "n: "),
        (form({"melody": wav(1)}, size="x"), 422, "unknown_field", "size"),
        ({"content": b"a"}, 415, "unsupported_content_type", "application/json or multipart"),
    ],
)
async def test_what_is_refused_says_why(
    served: Served, sent: dict[str, object], status: int, code: str, reason: str
):
    response = await served.http.post(PATH, **sent)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code, error
    assert reason in error["message"]
    assert code != "invalid_audio" or error["param"] in sent["files"]
    assert not served.music.seen


async def test_the_description_of_the_api_has_every_field(served: Served):
    described = (await served.http.get("/openapi.json")).json()
    bodies = described["components"]["schemas"]
    body, form = bodies["GenerationsBody"], bodies["CreateGenerationsForm"]
    only_beside_files = {"continue_from", "melody", "start", "end", "include_prompt"}
    assert {"prompt", "prompts", "decoder"} <= body["properties"].keys()
    assert form["properties"].keys() - body["properties"].keys() == only_beside_files
