"""Tiers of quality: what they stand for, what wins over them, and which one `auto` is."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from api.keys import EVERYONE
from api.settings import UserConfig
from deployments.ledger_state import Charge
from tests.api.conftest import Served, Server

PATH = "/v1/generations"
BODY = {"prompt": "a", "duration": 2, "seed": 5}
SMALL, LARGE = {"model": "music", "format": "mp3"}, {"model": "hum"}
TWO_MODELS = {
    "draft": SMALL,
    "standard": {"model": "hum"},
    "high": {"model": "hum", "decoder": "mbd"},
}


def limits(**tiers: Any) -> UserConfig:
    return UserConfig.model_validate({"quality": tiers})


async def told(served: Served | Server, **body: Any) -> tuple[str, str, str]:
    """The tier, the model and the kind of file that a request gets."""
    answer = await served.http.post(PATH, json=BODY | body)
    assert answer.status_code == 200, answer.text
    headers = answer.headers
    return headers["x-quality"], headers["x-model"], headers["content-type"]


@pytest.mark.parametrize(
    ("quality", "wanted"),
    [("draft", "audio/mpeg"), ("standard", "audio/wav"), ("high", "audio/wav")],
)
async def test_a_tier_stands_for_what_is_not_said(served: Served, quality: str, wanted: str):
    assert await told(served, quality=quality) == (quality, "music", wanted)
    assert len(served.diffusion.seen) == (quality == "high")


async def test_what_is_said_wins(served: Served):
    assert await told(served, quality="draft", format="flac") == ("draft", "music", "audio/flac")
    assert await told(served, quality="draft", sample_rate=8001) == ("draft", "music", "audio/wav")
    assert await told(served, quality="draft", bitrate=None) == ("draft", "music", "audio/mpeg")
    await told(served, quality="high", decoder="encodec")
    assert not served.diffusion.seen
    served.service.limits = limits(**TWO_MODELS)
    assert await told(served, quality="high") == ("high", "hum", "audio/wav")
    assert await told(served, quality="high", model="music") == ("high", "music", "audio/wav")


async def test_without_it_there_is_no_tier(served: Served):
    served.service.limits = limits(standard={"format": "flac"})
    answer = await served.http.post(PATH, json=BODY)
    assert "x-quality" not in answer.headers
    assert answer.headers["content-type"] == "audio/wav"


async def test_a_tier_that_cannot_be_had_says_why(server: Server):
    answer = await server.http.post(PATH, json=BODY | {"quality": "high"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("quality_unavailable", "quality")
    assert "not configured for 'music'" in error["message"]
    assert await told(server, quality="auto") == ("standard", "music", "audio/wav")


async def test_a_stream_is_never_by_diffusion(served: Served):
    body = BODY | {"stream": True}
    refused = await served.http.post(PATH, json=body | {"quality": "high"})
    assert "leave out stream" in refused.json()["error"]["message"]
    assert await told(served, quality="auto", stream=True) == ("standard", "music", "audio/wav")


async def test_auto_leaves_out_what_follows_no_melody(served: Served):
    served.service.limits = limits(high={"model": "music"}, standard={"model": "hum"})
    from tests.api.test_uploads import wav

    data = {"prompt": "a", "duration": "1", "quality": "auto"}
    answer = await served.http.post(PATH, data=data, files={"melody": wav(1.0)})
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-quality"], answer.headers["x-model"]) == ("standard", "hum")


@pytest.mark.parametrize(
    ("target_s", "tier"),
    [(60, "high"), (4.5, "high"), (3, "standard"), (1.5, "draft"), (0.1, "draft")],
)
async def test_auto_is_the_best_within_a_time(served: Served, target_s: float, tier: str):
    """Two models that have not worked yet: 2 s of audio, twice under guidance, at an assumed 2 a
    second; and as long again for diffusion.
    """
    served.service.limits = limits(**TWO_MODELS)
    assert (await told(served, quality="auto", target_s=target_s))[0] == tier


async def test_under_load_it_is_a_cheaper_one(served: Served):
    served.service.limits = limits(**TWO_MODELS)
    assert (await told(served, quality="auto"))[0] == "high"
    charge = Charge("everyone", 1.0, "hum", 100, 1)
    async with served.service.executor.admission.hold_charges(EVERYONE, [charge]):
        assert await told(served, quality="auto") == ("draft", "music", "audio/mpeg")
    await served.service.ledger.wait_for_calls()
    assert (await told(served, quality="auto"))[0] == "high"


async def test_it_goes_by_what_diffusion_took(served: Served):
    served.service.diffusion_speed.add_clip("diffusion", seconds=100, audio_seconds=2)
    assert (await told(served, quality="auto"))[0] == "standard"
    await told(served, quality="high")
    assert served.service.diffusion_speed.seconds_for("diffusion") < 50


async def test_without_the_ledger_models_are_taken_to_be_idle(served: Served):
    served.service.ledger.methods.reached = False
    assert (await told(served, quality="auto"))[0] == "high"


async def test_tiers_are_kept_apart(served: Served):
    """The header is part of the answer, so also where two tiers come to the same."""
    served.service.limits = limits(draft={}, high={})
    found = []
    for quality in ("standard", "draft", "standard", "auto"):
        answer = await served.http.post(PATH, json=BODY | {"quality": quality})
        found.append((answer.headers["x-quality"], answer.headers["x-cache"]))
    assert found == [("standard", "miss"), ("draft", "miss"), ("standard", "hit"), ("high", "miss")]


async def test_the_same_key_means_the_same_whatever_auto_is(served: Served):
    await served.service.jobs.store.open()
    ask = {"json": BODY | {"quality": "auto"}, "headers": {"idempotency-key": "one"}}
    first = await served.http.post(PATH, **ask)
    served.service.limits = limits(high={"format": "flac"})
    again = await served.http.post(PATH, **ask)
    assert again.status_code == 200, again.text
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-quality"] == first.headers["x-quality"] == "high"
    await served.service.jobs.store.close()


@pytest.mark.parametrize("quality", [None, "draft"])
async def test_a_target_is_of_auto(served: Served, quality: str | None):
    answer = await served.http.post(PATH, json=BODY | {"quality": quality, "target_s": 5})
    assert answer.status_code == 422
    assert "target_s belongs to quality auto" in answer.json()["error"]["message"]


async def test_the_limits_tell_what_tiers_stand_for(server: Server):
    told = (await server.http.get("/v1/limits")).json()["quality"]
    assert told["draft"]["format"] == "mp3"
    assert told["high"]["decoder"] == "mbd"


@pytest.mark.parametrize(
    ("tier", "what"),
    [
        ({"bitrate": 64}, "wav supports no bit rate"),
        ({"format": "opus", "sample_rate": 32000}, "opus supports 48000"),
        ({"format": "mp3", "bitrate": 1000}, "from 32 to 320"),
        ({"steps": 3}, "valid keys: model, decoder"),
        ({"decoder": "dac"}, "encodec"),
    ],
)
def test_a_tier_that_makes_no_sense_is_refused(tier: dict[str, Any], what: str):
    with pytest.raises(ValidationError) as raised:
        limits(draft=tier)
    assert what in json.dumps(raised.value.errors(), default=str)
