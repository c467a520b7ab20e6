"""Content credentials: what is signed, what another reader finds in it, and what is refused."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import av
import c2pa
import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from api.audio import codes_file
from api.audio.credentials import PURPOSES, CredentialsError, Signer
from api.audio.encoder import encode_samples
from api.audio.output import FORMATS, Output
from api.audio.tags import AI_GENERATED, COMPOSITE, Tags
from engine.params import Codes
from graph.settings import ContentCredentials
from launch.start import LaunchError, check_environment
from tests.api.conftest import Served
from tests.api.test_uploads import wav
from tests.certificates import PEM, certificate, key_for

PATH = "/v1/generations"
HEADER = "x-content-credentials"
HOLDING = ("wav", "flac", "mp3")
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()
TAGS = Tags("music", 2**63 - 1, {"top_k": 250}, "calm piano")


Write = Callable[..., ContentCredentials]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes a chain and a key; changes make them wrong."""

    def write(
        algorithm: str = "es256",
        chain: Callable[[bytes, bytes], bytes] = bytes.__add__,
        key: bytes | None = None,
        url: str | None = None,
        **leaf: object,
    ) -> ContentCredentials:
        authority, own = key_for("es256", 1), key_for(algorithm)
        ca, signer = certificate(authority, None), certificate(own, authority, **leaf)
        (tmp_path / "chain.pem").write_bytes(chain(signer, ca))
        (tmp_path / "key.pem").write_bytes(key or own.private_bytes(PEM, PKCS8, PLAIN))
        return ContentCredentials(
            certificates=tmp_path / "chain.pem",
            private_key=tmp_path / "key.pem",
            algorithm=algorithm,
            time_stamp_url=url,
        )

    return write


@pytest.fixture
def signing(served: Served, written: Write) -> Served:
    """The application with a key."""
    served.service.signer = Signer(written())
    return served


async def generated(server: Served, **body: object) -> httpx.Response:
    asked = {"prompt": "calm piano", "duration": 1, "seed": 5, "cache": False}
    response = await server.http.post(PATH, json=asked | body)
    assert response.status_code == 200, response.text
    return response


def manifest_of(file: bytes, name: str = "wav", trusting: str = "") -> dict:
    """What another reader finds; all but its trust must hold."""
    with (
        c2pa.Context.from_dict({"trust": {"trust_config": trusting}}) as context,
        c2pa.Reader(FORMATS[name].media_type, io.BytesIO(file), context=context) as reader,
    ):
        assert reader.get_validation_state() == "Valid", reader.json()
        failures = reader.get_validation_results()["activeManifest"]["failure"]
        assert [one["code"] for one in failures] == ["signingCredential.untrusted"]
        return reader.get_active_manifest()


def action_of(manifest: dict) -> dict:
    (assertion,) = manifest["assertions"]
    assert assertion["label"] == "c2pa.actions.v2"
    (action,) = assertion["data"]["actions"]
    return action


def has_manifest(file: bytes, name: str = "wav") -> bool:
    return c2pa.Reader.try_create(FORMATS[name].media_type, io.BytesIO(file)) is not None


def heard(file: bytes) -> tuple[np.ndarray, dict[str, str]]:
    """Samples and tags, by FFmpeg."""
    with av.open(io.BytesIO(file)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1), container.metadata


@pytest.mark.parametrize("name", HOLDING)
async def test_a_signed_file_says_how_it_was_made(served: Served, written: Write, name: str):
    plain = await generated(served, format=name)
    assert HEADER not in plain.headers
    assert not has_manifest(plain.content, name)
    served.service.signer = Signer(written())
    signed = await generated(served, format=name)
    assert signed.headers[HEADER] == "signed"

    manifest = manifest_of(signed.content, name)
    generator = manifest["claim_generator_info"][0]
    described = (await served.http.get("/openapi.json")).json()["info"]
    assert generator["name"] == described["title"]
    assert generator["version"] == described["version"]
    assert manifest["title"] == "calm piano"
    action = action_of(manifest)
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == AI_GENERATED
    assert action["softwareAgent"]["name"] == "music"

    (audio, tags), (bare, bare_tags) = heard(signed.content), heard(plain.content)
    np.testing.assert_array_equal(audio, bare)
    assert tags == bare_tags
    told = json.loads(tags["comment"])
    assert action["parameters"] == {
        name: value for name, value in told.items() if name not in ("digital_source_type", "model")
    }
    assert (told["seed"], told["prompt"], told["duration"]) == (5, "calm piano", 1.0)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - HOLDING))
async def test_what_holds_no_manifest_goes_out_as_it_is(signing: Served, name: str):
    response = await generated(signing, format=name)
    assert HEADER not in response.headers
    assert b"c2pa" not in response.content


@pytest.mark.parametrize("name", HOLDING)
async def test_a_changed_byte_is_found(signing: Served, name: str):
    file = bytearray((await generated(signing, format=name)).content)
    file[len(file) // 2] ^= 1
    with c2pa.Reader(FORMATS[name].media_type, io.BytesIO(file)) as reader:
        assert reader.get_validation_state() == "Invalid"
        failures = reader.get_validation_results()["activeManifest"]["failure"]
    assert "assertion.dataHash.mismatch" in [one["code"] for one in failures]


async def test_a_prompt_that_is_not_to_be_told_is_not_signed(signing: Served):
    response = await generated(signing, tag_prompt=False)
    assert b"calm piano" not in response.content
    manifest = manifest_of(response.content)
    assert manifest["title"] == "music"
    assert "prompt" not in action_of(manifest)["parameters"]


async def test_every_clip_of_a_json_answer_is_signed(signing: Served):
    response = await generated(signing, prompts=["rain", "wind"], prompt=None, n=2, format="mp3")
    assert response.headers[HEADER] == "signed"
    files = [base64.b64decode(clip["audio"]) for clip in response.json()["clips"]]
    made = [action_of(manifest_of(file, "mp3"))["parameters"] for file in files]
    assert [(one["prompt"], one["variation"]) for one in made] == [
        ("rain", 0), ("rain", 1), ("wind", 0), ("wind", 1),
    ]  # fmt: skip


async def events_of(server: Served, **body: object) -> tuple[httpx.Response, bytes]:
    """The answer, and the file that its events bring."""
    asked = {"prompt": "calm piano", "duration": 1, **body}
    response = await server.http.post(PATH, json=asked, headers={"accept": "text/event-stream"})
    blocks = [block.splitlines() for block in response.text.strip().split("\n\n")]
    parts = [json.loads(data[6:])["audio"] for kind, data in blocks if kind == "event: audio"]
    return response, b"".join(map(base64.b64decode, parts))


async def test_files_in_events_are_signed_but_those_that_grow(signing: Served):
    response, file = await events_of(signing)
    assert response.headers[HEADER] == "signed"
    assert manifest_of(file)["title"] == "calm piano"
    response, file = await events_of(signing, stream=True)
    assert HEADER not in response.headers
    assert not has_manifest(file)


async def test_a_stream_is_not_signed_unless_it_is_what_was_kept(signing: Served):
    grown = await generated(signing, cache=True, stream=True)
    assert HEADER not in grown.headers
    assert not has_manifest(grown.content)
    kept = await generated(signing, cache=True)
    given = await generated(signing, cache=True, stream=True)
    assert given.content == kept.content
    assert given.headers[HEADER] == "signed"


@pytest.mark.parametrize(("include", "source"), [(True, COMPOSITE), (False, AI_GENERATED)])
async def test_what_was_sent_along_is_not_called_generated(
    signing: Served, include: bool, source: str
):
    data = {"prompt": "a", "duration": "2", "include_prompt": str(include).lower()}
    response = await signing.http.post(PATH, data=data, files={"continue_from": wav(1.0)})
    assert action_of(manifest_of(response.content))["digitalSourceType"] == source
    assert json.loads(heard(response.content)[1]["comment"])["digital_source_type"] == source


async def test_mixes_and_stems_are_signed_but_not_a_voice(signing: Served):
    form = {"theme": "the sea", "intro": "1", "outro": "1", "transitions": "0"}
    response = await signing.http.post(
        "/v1/workflows/podcast", data=form, files={"voice": wav(1.0)}
    )
    assert response.headers[HEADER] == "signed"
    body = response.json()
    tracks = {one["name"]: base64.b64decode(one["audio"]) for one in [body["mix"], *body["stems"]]}
    assert not has_manifest(tracks.pop("voice"))
    sources = {n: action_of(manifest_of(t))["digitalSourceType"] for n, t in tracks.items()}
    assert sources == dict.fromkeys(["mix", "intro", "bed", "outro"], AI_GENERATED) | {
        "mix": COMPOSITE
    }


async def test_decoded_uploads_are_not_signed(signing: Served):
    """Whose they are is not known here; that no prompt made them is."""
    codes = Codes.pack(np.zeros((4, 20), int))
    info = await signing.service.registry.handles["codec"].info.remote()
    files = {"codes_file": codes_file.write_codes(codes, info, 6000, "codec")}
    for path in ("/v1/codec/decode", "/v1/mbd/decode"):
        response = await signing.http.post(path, files=files)
        assert response.status_code == 200, response.text
        assert HEADER not in response.headers
        assert not has_manifest(response.content)


@pytest.mark.parametrize(
    "algorithm", ["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
)
def test_every_algorithm_signs(written: Write, algorithm: str):
    file = Signer(written(algorithm)).sign_file(silence(), Output(), TAGS)
    manifest = manifest_of(file)
    assert manifest["signature_info"]["alg"].lower() == algorithm
    assert action_of(manifest)["parameters"]["seed"] == TAGS.seed


@pytest.mark.parametrize("purpose", PURPOSES)
def test_certificates_for_each_purpose_sign(written: Write, purpose: str):
    signer = Signer(written(purpose=x509.ObjectIdentifier(purpose)))
    manifest_of(signer.sign_file(silence(), Output(), TAGS), trusting=purpose)


def silence() -> bytes:
    return encode_samples(np.zeros((1, 8000), np.float32), 16000, Output(), None)


def test_many_threads_sign_at_once(written: Write):
    signer, together = Signer(written()), Barrier(8)

    def sign(number: int) -> list[bytes]:
        together.wait()
        tags = replace(TAGS, seed=number)
        return [signer.sign_file(silence(), Output(), tags) for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        for number, files in enumerate(pool.map(sign, range(8))):
            for file in files:
                assert action_of(manifest_of(file))["parameters"]["seed"] == number


OTHER = key_for("es256", 2).private_bytes(PEM, PKCS8, PLAIN)
LOCKED = key_for("es256").private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"word"))
WRONG = {
    "a key of another": ({"key": OTHER}, "private_key .* must be the key of the signer"),
    "another algorithm": ({"key": OTHER, "algorithm": "ps256"}, "for algorithm ps256"),
    "a key with a passphrase": ({"key": LOCKED}, "without a passphrase"),
    "no key": ({"key": b"none"}, "private key"),
    "no certificate": ({"chain": lambda leaf, ca: b"none"}, "certificate"),
    "the authority first": (
        {"chain": lambda leaf, ca: ca + leaf},
        "begin with the certificate of the signer",
    ),
    "an end in the past": ({"days": 0.5}, "valid now"),
    "another purpose": ({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, "for e-mail protection"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_what_cannot_sign_is_refused_at_the_start(
    written: Write, change: dict[str, object], reason: str
):
    settings = written(**change)
    with pytest.raises(CredentialsError, match=f"content_credentials: .*{reason}") as raised:
        Signer(settings)
    secret = settings.private_key.read_text().splitlines()[1:-1]
    assert not any(line in str(raised.value) for line in secret)


@pytest.mark.parametrize("name", ["certificates", "private_key"])
def test_a_file_that_cannot_be_read_is_named(written: Write, name: str):
    settings = written()
    getattr(settings, name).unlink()
    ingress = {"content_credentials": settings.model_dump(mode="json")}
    model = {"name": "codec", "kind": "encodec", "checkpoint": "x"}
    config = {"applications": [{"args": {"models": [model], "ingress": ingress}}]}
    with pytest.raises(LaunchError, match=rf"content_credentials\.{name}: .*No such file.*PEM"):
        check_environment(config)


async def test_who_cannot_sign_now_says_so(
    served: Served, written: Write, caplog: pytest.LogCaptureFixture, unused_tcp_port: int
):
    """Here the authority of time is out of reach; the log has the reason, and no key."""
    settings = written(url=f"http://127.0.0.1:{unused_tcp_port}")
    served.service.signer = Signer(settings)
    with caplog.at_level(logging.INFO, "ray.serve"):
        body = {"prompt": "a", "duration": 1}
        response = await served.http.post(PATH, json=body)
        ogg = await served.http.post(PATH, json=body | {"format": "ogg"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "signing_failed"
    assert ogg.status_code == 200
    assert str(unused_tcp_port) in caplog.text
    secret = settings.private_key.read_text().splitlines()[1:-1]
    assert not any(line in caplog.text + response.text for line in secret)


async def test_other_requests_go_on_while_one_is_signed(signing: Served):
    """Signing runs on a thread of its own: the loop turns meanwhile."""
    sign, loop = signing.service.signer.sign_file, asyncio.get_running_loop()

    def asks_the_loop(*args: object) -> bytes:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(10)
        return sign(*args)

    signing.service.signer.sign_file = asks_the_loop
    assert (await generated(signing)).headers[HEADER] == "signed"
    response, _ = await events_of(signing)
    assert response.text.count("event: done") == 1
    await generated(signing, n=2)
