"""Files in: codec, discriminators, and what is refused before any model is asked."""

import io
import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import soundfile
import torch
from safetensors import numpy as safetensors

from api.ingress import create_app
from api.settings import UserConfig
from deployments.settings import DiscriminatorsSettings, EnCodecSettings
from engine.codec import Codec
from engine.discriminators import Discriminators
from engine.params import AudioPiece, Codes, CodesPiece, Waveform
from graph import pipeline
from graph.pipeline import split_length
from tests import checkpoints as write
from tests.api.conftest import Media, Real, serving

RATE = 16000


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("uploads")
    codec = Codec(write.write_codec(folder))
    write.write_discriminators(folder)
    calibration = {"weights": {"mpd": 1.0, "msd": 1.0, "msstftd": 1.0}, "bias": 0.5}
    (folder / "calibration.json").write_text(json.dumps(calibration))
    return {"codec": codec, "judge": Discriminators.load(str(folder), device="cpu")}


@pytest.fixture
async def http(parts: dict[str, object]) -> AsyncIterator[httpx.AsyncClient]:
    models = [
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
        DiscriminatorsSettings(name="judge", kind="discriminators", checkpoint="x"),
    ]
    handles = {name: Real(part) for name, part in parts.items()} | {"media": Media()}

    limits = UserConfig(max_body_bytes=60_000, max_upload_bytes=4_000_000, max_upload_s=60)
    service = serving(models, handles, limits)
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def wav(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> bytes:
    audio = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels))
    file = io.BytesIO()
    soundfile.write(file, audio, rate, "FLOAT", format="WAV")
    return file.getvalue()


def upload(data: bytes) -> dict[str, tuple[str, bytes]]:
    return {"audio_file": ("x.wav", data)}


def samples_of(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    audio, rate = soundfile.read(io.BytesIO(response.content), dtype="float32", always_2d=True)
    assert rate == RATE
    return audio.T


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, [(0, 0)]),
        (3, [(0, 3)]),
        (10, [(0, 10)]),
        (14, [(0, 14)]),
        (16, [(0, 10), (10, 16)]),
        (31, [(0, 10), (10, 20), (20, 31)]),
    ],
)
def test_split_length(total: int, expected: list[tuple[int, int]]):
    assert split_length(total, 10) == expected


@pytest.mark.parametrize("layout", ["json", "safetensors"])
async def test_encode_and_decode_are_the_codecs(
    http: httpx.AsyncClient, parts: dict[str, object], layout: str
):
    """Whatever rate and channels a file has; its length comes back."""
    codec = parts["codec"]
    file = wav(1.3, rate=24000, channels=2)
    response = await http.post("/v1/codec/encode", files=upload(file), data={"format": layout})
    assert response.status_code == 200, response.text
    if layout == "json":
        made = response.json()
        codes = np.array(made["codes"])
        assert made["samples"] == 1.3 * RATE
        assert (made["codebooks"], made["frame_rate"], made["sample_rate"]) == (4, 50.0, RATE)
        again = await http.post(
            "/v1/codec/decode", json={"codes": made["codes"], "samples": made["samples"]}
        )
    else:
        codes = safetensors.load(response.content)["codes"]
        again = await http.post("/v1/codec/decode", files={"codes_file": response.content})
    heard = await Media().decode.remote(file, UserConfig().build_media_limits(), RATE, 1)
    (expected,) = codec.encode([AudioPiece(heard)])
    np.testing.assert_array_equal(codes, expected.codes.array())
    (decoded,) = codec.decode([CodesPiece(expected.codes)])
    audio = samples_of(again)
    assert audio.shape == (1, 1.3 * RATE)
    wanted = decoded.audio.array()[:, : audio.shape[1]].clip(-1, 1)
    assert np.abs(audio - wanted).max() <= 1 / 32768


async def test_long_files_go_piece_by_piece(
    http: httpx.AsyncClient, parts: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "PIECE_S", 0.5)
    codec, file = parts["codec"], wav(2.7)
    response = await http.post("/v1/codec/encode", files=upload(file))
    codes = np.array(response.json()["codes"])
    heard = await Media().decode.remote(file, UserConfig().build_media_limits(), RATE, 1)
    (whole,) = codec.encode([AudioPiece(heard)])
    assert codes.shape == whole.codes.array().shape
    assert (codes == whole.codes.array()).mean() > 0.99
    audio = samples_of(await http.post("/v1/codec/decode", json={"codes": codes.tolist()}))
    (decoded,) = codec.decode([CodesPiece(Codes.pack(codes))])
    assert np.abs(audio - decoded.audio.array().clip(-1, 1)).max() <= 1e-5 + 1 / 32768


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({"codebooks": "2"}, 2), ({"bandwidth": "0.45"}, 1), ({"bandwidth": "1.8"}, 4)],
)
async def test_fewer_codebooks_are_the_first(
    http: httpx.AsyncClient, fields: dict[str, str], kept: int
):
    all_of_them = (await http.post("/v1/codec/encode", files=upload(wav(0.5)))).json()
    some = (await http.post("/v1/codec/encode", files=upload(wav(0.5)), data=fields)).json()
    assert some["codebooks"] == kept
    assert some["codes"] == all_of_them["codes"][:kept]


async def test_analysis(http: httpx.AsyncClient, parts: dict[str, object]):
    judge, file = parts["judge"], wav(2.0)
    response = await http.post("/analyze", files=upload(file), data={"threshold": "0.3"})
    assert response.status_code == 200, response.text
    found = response.json()
    (scores,) = judge.analyze(
        [await Media().decode.remote(file, UserConfig().build_media_limits(), RATE, 1)]
    )
    for name in ("mpd", "msd", "msstftd"):
        assert found[f"{name}_score"] == pytest.approx(scores.scores[name])
        assert found["scales"][name] == pytest.approx(scores.logits[name])
    mean = sum(scores.scores.values()) / 3
    assert found["is_real"] is (mean > 0.3)
    assert len(found["feature_maps"]) == 6 + 7 + 5
    assert all(0 < len(layer) <= 32 for layer in found["feature_maps"])
    logit = sum(sum(of) / len(of) for of in scores.logits.values()) + 0.5
    assert found["probability"] == pytest.approx(1 / (1 + np.exp(-logit)))
    strict = await http.post("/analyze?threshold=1", files=upload(file), data={"threshold": "0"})
    assert strict.json()["is_real"] is False
    assert strict.json()["threshold"] == 1.0
    assert (await http.post("/analyze", files=upload(file))).json()["threshold"] == 0.5


async def test_a_long_file_is_judged_window_by_window(
    http: httpx.AsyncClient, parts: dict[str, object]
):
    file = wav(23, rate=8000, channels=2)
    found = (await http.post("/analyze", files=upload(file))).json()
    heard = (await Media().decode.remote(file, UserConfig().build_media_limits(), RATE, 1)).array()
    cuts = [(0, 160000), (160000, 23 * RATE)]
    windows = [Waveform.pack(heard[:, start:end], RATE) for start, end in cuts]
    scores = parts["judge"].analyze(windows)
    expected = sum(w.samples * s.scores["msd"] for w, s in zip(windows, scores, strict=True))
    assert found["msd_score"] == pytest.approx(expected / (23 * RATE))


GOOD = wav(0.5)


@pytest.mark.parametrize(
    ("path", "sent", "status", "code", "reason"),
    [
        ("analyze", {"files": upload(b"no audio")}, 422, "invalid_audio", "cannot be read"),
        ("analyze", {"files": upload(wav(0.1))}, 422, "invalid_value", "too short"),
        ("analyze", {"files": upload(wav(61, rate=1000))}, 422, "invalid_audio", "than 60 s"),
        ("analyze", {"files": upload(bytes(5_000_000))}, 413, "body_too_large", "above"),
        ("analyze", {"files": {"file": GOOD}}, 422, "unknown_field", "audio_file"),
        ("analyze", {"json": {}}, 415, "unsupported_content_type", "multipart/form-data"),
        ("analyze?threshold=2", {"files": upload(GOOD)}, 422, "invalid_value", "threshold"),
        (
            "analyze",
            {"files": upload(GOOD), "data": {"model": "codec"}},
            404,
            "model_not_found",
            "valid: judge",
        ),
        ("v1/codec/encode", {"files": upload(b"")}, 422, "invalid_audio", "empty"),
        (
            "v1/codec/encode",
            {"files": upload(GOOD), "data": {"codebooks": "5"}},
            422,
            "invalid_value",
            "from 1 to 4",
        ),
        (
            "v1/codec/encode",
            {"files": upload(GOOD), "data": {"bandwidth": "1.5"}},
            422,
            "invalid_value",
            "this codec has 0.45, 0.9, 1.35, 1.8",
        ),
        (
            "v1/codec/encode",
            {"files": upload(GOOD), "data": {"bandwidth": "0.9", "codebooks": "2"}},
            422,
            "invalid_value",
            "not both",
        ),
        *(
            (
                "v1/codec/encode",
                {"files": upload(GOOD), "data": {"bandwidth": bandwidth}},
                422,
                "invalid_value",
                "bandwidth",
            )
            for bandwidth in ("nan", "inf", "-1", "1e300", "1e308")
        ),
        (
            "v1/codec/decode",
            {
                "files": {
                    "codes_file": safetensors.save(
                        {"codes": np.zeros((4, 2), np.int16)}, metadata={"samples": "-5"}
                    )
                }
            },
            422,
            "invalid_codes",
            "-5 samples",
        ),
        (
            "v1/codec/decode",
            {"files": {"codes_file": safetensors.save({"codes": np.zeros((4, 3001), np.int16)})}},
            422,
            "invalid_value",
            "up to 60 s",
        ),
        ("v1/codec/decode", {"json": {"codes": [[512]] * 4}}, 422, "invalid_value", "to 511"),
        ("v1/codec/decode", {"json": {"codes": [[1]] * 5}}, 422, "invalid_value", "1 to 4"),
        (
            "v1/codec/decode",
            {"json": {"codes": [[1], []]}},
            422,
            "invalid_codes",
            "same number",
        ),
        ("v1/codec/decode", {"json": {"codes": [[], []]}}, 422, "invalid_codes", "shape"),
        ("v1/codec/decode", {"json": {"codes": [["a"]]}}, 422, "invalid_value", "codes"),
        ("v1/codec/decode", {"json": {"codes": [[1]], "x": 1}}, 422, "unknown_field", "'x'"),
        (
            "v1/codec/decode",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "invalid_json",
            "not JSON",
        ),
        (
            "v1/codec/decode",
            {"files": {"codes_file": b"nothing"}},
            422,
            "invalid_codes",
            "safetensors",
        ),
        (
            "v1/codec/decode",
            {"files": {"codes_file": safetensors.save({"codes": np.zeros((4, 2))})}},
            422,
            "invalid_codes",
            "float64",
        ),
        ("v1/codec/decode", {"files": {"other": b"x"}}, 422, "unknown_field", "'other'"),
    ],
)
async def test_what_is_refused_says_why(
    http: httpx.AsyncClient,
    path: str,
    sent: dict[str, object],
    status: int,
    code: str,
    reason: str,
):
    response = await http.post(f"/{path}", **sent)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert reason in error["message"]
    assert code != "invalid_audio" or error["param"] == "audio_file"
    assert response.json()["request_id"]
