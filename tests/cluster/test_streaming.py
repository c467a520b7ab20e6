"""Clips that are sent while they are made, through Ray Serve's proxy."""

import io

import numpy as np
import pytest
import soundfile

from tests.cluster.conftest import Deployed
from tests.waiting import until

PATH = "/v1/generations"
LONG = {"prompt": "calm piano", "duration": 30, "seed": 3, "stream": True}


@pytest.mark.parametrize("accept", ["audio/wav", "text/event-stream"])
def test_audio_comes_while_the_rest_is_made(deployed: Deployed, accept: str):
    with deployed.http.stream("POST", PATH, json=LONG, headers={"accept": accept}) as response:
        assert response.status_code == 200
        parts = response.iter_bytes()
        first = next(parts)
        assert len(first) > 1000, "an event comes in one piece"
        assert deployed.load().running == 1
        file = first + b"".join(parts)
    if accept == "audio/wav":
        whole = deployed.http.post(PATH, json=LONG | {"stream": False})
        made, wanted = (soundfile.read(io.BytesIO(one))[0] for one in (file, whole.content))
        assert len(made) == len(wanted) == 30 * 16000
        assert np.abs(made - wanted).max() <= 1 / 32768


@pytest.mark.parametrize("accept", ["audio/wav", "text/event-stream"])
def test_a_reader_who_leaves_frees_the_slot(deployed: Deployed, accept: str):
    before = deployed.load()
    with deployed.http.stream("POST", PATH, json=LONG, headers={"accept": accept}) as response:
        next(response.iter_bytes())
    stopped = until(lambda: (now := deployed.load()).requests == 0 and now)
    assert stopped.cancelled == before.cancelled + 1
    assert stopped.steps - before.steps < 1500, "it ran to its end"
