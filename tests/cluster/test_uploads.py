"""Files in and out of the running graph, and what shares a batch there."""

import base64
import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from ray import serve

from engine.params import Codes, CodesPiece, DiffusionParams
from tests.application import APPLICATION
from tests.cluster.conftest import Deployed
from tests.waiting import until

RATE = 16000


def wav(seconds: float, rate: int = RATE) -> bytes:
    time = np.arange(int(seconds * rate)) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * 330 * time), rate, "PCM_16", format="WAV")
    return file.getvalue()


def codes(frames: int, seed: int = 0) -> Codes:
    return Codes.pack(np.random.default_rng(seed).integers(0, 512, (4, frames)))


def test_a_file_to_codes_and_back(deployed: Deployed):
    encoded = deployed.http.post("/v1/codec/encode", files={"audio_file": wav(1.5, 44100)})
    assert encoded.status_code == 200, encoded.text
    made = encoded.json()
    assert (made["frames"], made["samples"], made["model"]) == (75, 24000, "codec")
    sent = {"codes": made["codes"], "samples": made["samples"]}
    decoded = deployed.http.post("/v1/codec/decode", json=sent)
    assert decoded.status_code == 200, decoded.text
    assert soundfile.info(io.BytesIO(decoded.content)).duration == pytest.approx(1.5)


def test_a_file_is_judged(deployed: Deployed):
    found = deployed.http.post("/analyze", files={"audio_file": wav(1.0)})
    assert found.status_code == 200, found.text
    scores = [found.json()[f"{name}_score"] for name in ("mpd", "msd", "msstftd")]
    assert all(0 < score < 1 for score in scores)
    assert found.json()["is_real"] is (sum(scores) / 3 > 0.5)


def test_a_crash_of_the_decoder_ends_one_upload_and_nothing_else(deployed: Deployed):
    with ThreadPoolExecutor(1) as pool:
        begun = deployed.load().steps
        clip = pool.submit(deployed.generate, duration=20)
        until(lambda: deployed.load().steps > begun)
        deployed.replica("media").kill()
        assert clip.result().status_code == 200
    until(lambda: deployed.http.post("/analyze", files={"audio_file": wav(1.0)}).status_code == 200)


def test_pieces_of_several_clients_share_a_codec_batch(deployed: Deployed):
    codec = serve.get_deployment_handle("codec", APPLICATION)
    before = codec.load.remote().result()
    alone = [codec.decode.remote(CodesPiece(codes(10, seed))).result() for seed in range(8)]
    waiting = [codec.decode.remote(CodesPiece(codes(10, seed))) for seed in range(8)]
    together = [one.result() for one in waiting]
    after = codec.load.remote().result()
    assert [one.audio for one in together] == [one.audio for one in alone]
    assert after.items - before.items == 16
    assert after.batches - before.batches < 16
    assert after.busy == 0


def test_grpc_carries_more_than_serves_own_limit(deployed: Deployed):
    codec = serve.get_deployment_handle("codec", APPLICATION).options(_by_reference=False)
    made = codec.decode.remote(CodesPiece(codes(3500))).result()
    assert made.audio.array().nbytes > 4 * 2**20


def test_diffusion_tells_how_far_it_is(deployed: Deployed):
    handle = serve.get_deployment_handle("diffusion", APPLICATION).options(stream=True)
    told = list(handle.generate.remote(DiffusionParams(codes(100), seed=3)))
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert {one.total for one in told} == {40}
    assert [one.audio is None for one in told] == [True] * (len(told) - 1) + [False]
    assert told[-1].audio.samples == 100 * 320


def test_a_caller_of_diffusion_that_leaves_stops_it(deployed: Deployed):
    handle = serve.get_deployment_handle("diffusion", APPLICATION)
    endless = handle.options(stream=True).generate.remote(DiffusionParams(codes(3000), seed=3))
    assert next(iter(endless)).audio is None
    endless.cancel()
    until(lambda: handle.load.remote().result().busy == 0)
    (*_, last) = handle.options(stream=True).generate.remote(DiffusionParams(codes(5), seed=3))
    assert last.audio.samples == 5 * 320


def test_generations_of_every_kind(deployed: Deployed):
    """Clips of a list share steps with each other; a file goes on; diffusion decodes."""
    body = {"prompts": ["calm piano", "fast organ"], "n": 2, "duration": 1, "seed": 5}
    before = deployed.load()
    several = deployed.http.post("/v1/generations", json=body)
    assert several.status_code == 200, several.text
    assert len({clip["audio"] for clip in several.json()["clips"]}) == 4
    after = deployed.load()
    assert after.completed - before.completed == 4
    assert after.steps - before.steps < 4 * 50
    alone = deployed.http.post(
        "/v1/generations", json={"prompt": "fast organ", "duration": 1, "seed": 5}
    )
    (same,) = [
        clip["audio"]
        for clip in several.json()["clips"]
        if (clip["prompt"], clip["variation"]) == ("fast organ", 0)
    ]
    assert base64.b64decode(same) == alone.content
    longer = deployed.http.post(
        "/v1/generations",
        data={"prompt": "calm piano", "duration": "2", "seed": "5", "decoder": "mbd"},
        files={"continue_from": wav(1.0)},
    )
    assert longer.status_code == 200, longer.text
    assert soundfile.info(io.BytesIO(longer.content)).duration == 2.0


def test_a_client_of_many_clips_that_leaves_frees_all_its_slots(deployed: Deployed):
    before = deployed.load()
    body = json.dumps({"prompt": "x", "n": 4, "duration": 30}).encode()
    head = (
        "POST /v1/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(deployed.address) as client:
        client.sendall(head.encode() + body)
        until(lambda: deployed.load().running == 4)
    stopped = until(lambda: (now := deployed.load()).requests == 0 and now)
    assert stopped.cancelled == before.cancelled + 4
