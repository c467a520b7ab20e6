"""The whole graph on a real cluster: text in, audio out."""

import copy
import io
import json
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
import soundfile
from ray import serve

from engine.params import GenerationParams
from tests.application import APPLICATION
from tests.cluster.conftest import FRACTIONS, Deployed
from tests.waiting import until

FRAME_S = 1 / 50
DELAY_STEPS = 4
"""A clip of T frames takes T + K - 1 steps, K = 4 codebooks; AudioCraft's loop takes one more
where it starts without a prompt."""


@pytest.mark.parametrize(
    ("where", "duration"), [("music", 0.02), ("music", 3.0), ("music", 1.234), ("audio", 2.0)]
)
def test_a_wav_of_the_asked_duration(deployed: Deployed, where: str, duration: float):
    response = deployed.generate(where, duration=duration)
    assert response.status_code == 200, response.text
    info = soundfile.info(io.BytesIO(response.content))
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert abs(info.duration - duration) <= FRAME_S
    audio, _ = soundfile.read(io.BytesIO(response.content))
    assert audio.std() > 0.001, "silent"


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="needs Debian's package ffmpeg")
def test_ffprobe_reads_it(deployed: Deployed, tmp_path: Path):
    (tmp_path / "music.wav").write_bytes(deployed.generate(duration=2).content)
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", tmp_path / "music.wav"]
    (stream,) = json.loads(subprocess.check_output(command))["streams"]
    assert stream["codec_name"] == "pcm_s16le"
    assert float(stream["duration"]) == 2.0


def test_the_seed_decides(deployed: Deployed):
    first = deployed.generate(duration=1, seed=1)
    assert first.content == deployed.generate(duration=1, seed=1).content
    assert first.content != deployed.generate(duration=1, seed=2).content
    drawn = deployed.generate(duration=1)
    again = deployed.generate(duration=1, seed=int(drawn.headers["x-seed"]))
    assert drawn.content == again.content


def test_the_text_decides(deployed: Deployed):
    one = deployed.generate(text="slow jazz with piano", duration=1, seed=1)
    other = deployed.generate(text="thunder and rain", duration=1, seed=1)
    assert one.content != other.content


def test_ten_at_once_get_what_each_gets_alone(deployed: Deployed):
    wanted = [("music" if i % 2 else "audio", {"duration": 1.0, "seed": i % 3}) for i in range(10)]
    alone = [deployed.generate(where, **body).content for where, body in wanted]
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda one: deployed.generate(one[0], **one[1]), wanted))
    assert [response.status_code for response in together] == [200] * 10
    assert [response.content for response in together] == alone


def test_twenty_at_once_share_steps_and_none_waits_for_anothers_end(deployed: Deployed):
    before = deployed.load()
    with ThreadPoolExecutor(20) as pool:
        long = pool.submit(deployed.generate, duration=30)
        until(lambda: deployed.load().running == 1)
        durations = [0.2 + 0.1 * number for number in range(19)]
        short = [pool.submit(deployed.generate, duration=duration) for duration in durations]
        assert [one.result().status_code for one in short] == [200] * 19
        assert not long.done()
        assert long.result().status_code == 200
    after = deployed.load()
    assert after.slots >= 20
    assert after.completed - before.completed == 20
    # One after another they would take the sum of their steps; together, no more than the longest.
    assert after.steps - before.steps <= 30 / FRAME_S + DELAY_STEPS + 1
    requests = after.steps * after.mean_running - before.steps * before.mean_running
    assert requests / (after.steps - before.steps) > 1.2


def test_codes_stream_while_they_are_made_and_leaving_frees_the_slot(deployed: Deployed):
    before = deployed.load()
    handle = serve.get_deployment_handle("music", APPLICATION).options(stream=True)
    whole = GenerationParams("calm piano", frames=300, seed=4)
    sizes = [chunk.codes.frames for chunk in handle.generate.remote(whole, 50, 10)]
    assert sizes[0] < 50 <= min(sizes[1:-1])
    assert sum(sizes) == 300
    endless = handle.generate.remote(GenerationParams("calm piano", frames=1500, seed=4), 50, 10)
    assert next(iter(endless)).codes.frames >= 10
    assert deployed.load().running == 1
    endless.cancel()
    stopped = until(lambda: (now := deployed.load()).requests == 0 and now)
    assert stopped.cancelled == before.cancelled + 1
    assert stopped.completed == before.completed + 1
    assert stopped.steps - before.steps < 1500, "it ran to its end"
    assert 0 < stopped.first_chunk_seconds < 60


def hang_up_after(deployed: Deployed, started: object, duration: float = 30) -> None:
    """Send a request, wait until `started` holds, and close the socket."""
    body = json.dumps({"text": "calm piano", "duration": duration}).encode()
    head = (
        "POST /generate/music HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(deployed.address) as client:
        client.sendall(head.encode() + body)
        until(started)


def test_a_client_that_hangs_up_leaves_no_work(deployed: Deployed):
    before = deployed.load()
    hang_up_after(deployed, lambda: deployed.load().steps > before.steps + 5)
    stopped = until(lambda: (now := deployed.load()).requests == 0 and now)
    assert stopped.cancelled == before.cancelled + 1
    assert stopped.steps - before.steps < 1500, "it ran to its end"
    # One thread runs the model, so steps of the abandoned request could only come before these.
    assert deployed.generate(duration=1).status_code == 200
    after = deployed.load()
    assert 50 <= after.steps - stopped.steps <= 50 + DELAY_STEPS + 1
    assert after.completed == before.completed + 1


def test_a_client_that_hangs_up_while_it_waits_costs_nothing(deployed: Deployed):
    before = deployed.load()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(deployed.generate, duration=10)
        until(lambda: deployed.load().steps > before.steps)
        hang_up_after(deployed, lambda: deployed.load().requests == 2)
        until(lambda: deployed.load().requests < 2)
        assert first.result().status_code == 200
    after = deployed.load()
    assert (after.cancelled, after.completed) == (before.cancelled + 1, before.completed + 1)
    assert after.steps - before.steps <= 500 + DELAY_STEPS


def test_everything_is_ready(deployed: Deployed):
    ready = deployed.http.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["deployments"]) == {*FRACTIONS, "media", "ledger", "ingress"}
    assert deployed.http.get("/healthz").status_code == 200


def test_the_proxys_request_id_is_in_the_error(deployed: Deployed):
    response = deployed.http.post("/generate/music", json={})
    assert response.status_code == 422
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_fractions_are_taken(deployed: Deployed):
    left = pytest.approx(2 - sum(FRACTIONS.values()))
    until(lambda: ray.available_resources().get("GPU") == left)


def test_limits_change_without_a_restart(deployed: Deployed):
    pids = {name: deployed.replica(name).pid for name in ("ingress", "music", "codec")}
    config = copy.deepcopy(deployed.config)
    config["applications"][0]["deployments"][0]["user_config"]["max_duration_s"] = 0.5
    try:
        deployed.redeploy(config)
        refused = until(lambda: (r := deployed.generate(duration=1)).status_code == 422 and r)
        assert "0.02 to 0.5 s" in refused.json()["error"]["message"]
        assert pids == {name: deployed.replica(name).pid for name in pids}
    finally:
        deployed.redeploy(deployed.config)
        until(lambda: deployed.generate(duration=1).status_code == 200)
