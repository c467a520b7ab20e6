"""Workflows by the embedded models: what comes back is measured."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pyloudnorm
import pytest

from api.ingress import create_app
from api.settings import UserConfig
from deployments.settings import AudioGenSettings, EnCodecSettings, MusicGenSettings
from engine.codec import Codec
from engine.engine import EngineSettings
from engine.language_model import LanguageModel
from engine.params import Codes, Generated, GenerationParams
from graph.workflows.levels import db_to_factor, measure_true_peak
from graph.workflows.mixing import DUCKED_DB
from tests.api.conftest import Media, Method, Real, serving
from tests.api.workflows.conftest import ROOT, Heard, heard, speech

pytestmark = pytest.mark.slow


class Local:
    """A language model's deployment, in this process."""

    def __init__(self, checkpoint: str) -> None:
        settings = EngineSettings(max_slots=4, max_text_tokens=64)
        self.model = LanguageModel.load(
            checkpoint, settings, device="cpu", frame_rate=50, stride_seconds=5
        )

    @property
    def info(self) -> Method:
        return Method(lambda: self.model.info)

    @property
    def generate(self) -> "Local":
        return self

    def options(self, *, stream: bool) -> "Local":
        assert stream
        return self

    async def remote(
        self, params: GenerationParams, *sizes: int, **_carried: Any
    ) -> AsyncIterator[Generated]:
        request = self.model.prepare(params)
        async for part in self.model.loop.generate(request, int(sizes[0]), int(sizes[1])):
            yield Generated(Codes.pack(part), *request.seconds_waited_and_run())


@pytest.fixture(scope="module")
def handles() -> Iterator[dict[str, Any]]:
    models = {name: Local(f"bundle:tiny/{name}") for name in ("music", "sound")}
    codec = Codec.load("bundle:tiny/codec", device="cpu", stereo=False)
    yield models | {"codec": Real(codec), "media": Media()}
    for local in models.values():
        local.model.loop.close()


@pytest.fixture
async def http(handles: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
    ]
    service = serving(models, handles, UserConfig())
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await service.ledger.close()


def check_level(answer: Heard, target: float) -> None:
    """As loud as was asked for, or as its peaks allow; and as the answer says."""
    measured = pyloudnorm.Meter(answer.rate).integrated_loudness(answer.mix.T.astype(float))
    assert answer.body["loudness"] == pytest.approx(measured, abs=0.1)
    peak = measure_true_peak(answer.mix)
    assert peak <= db_to_factor(-1) * 1.001
    stems = max((np.abs(stem).max() for stem in answer.stems), default=0)
    limited = peak > db_to_factor(-1) * 0.99 or stems > 0.99
    assert measured == pytest.approx(target, abs=0.5) or (limited and measured < target)


async def test_a_song(http: httpx.AsyncClient):
    body = {
        "sections": [
            {"name": "intro", "prompt": "calm piano", "bars": 1},
            {"name": "drop", "prompt": "fast drums", "bars": 1},
        ],
        "tempo": 125, "key": "A minor", "seed": 5, "loudness": -20,
        "effects": [{"prompt": "a door slams", "at": 1, "duration": 1}],
        "distribution": {"bandwidth": 0.9},
    }  # fmt: skip
    song = heard(await http.post(f"{ROOT}/song", json=body))
    assert song.mix.shape == (1, round(2 * 4 * 60 / 125 * song.rate))
    check_level(song, -20)
    np.testing.assert_allclose(song.summed(), song.mix, atol=4 / 32768)
    seam = song.start("drop") + round(60 / 125 * song.rate)
    steps = np.abs(np.diff(song.mix[0]))
    assert steps[seam - 20 : seam + 20].max() <= np.quantile(steps, 0.999) * 1.5
    assert song.body["distribution"]["duration"] == song.body["duration"]


async def test_a_podcast_gives_way_to_its_voice(http: httpx.AsyncClient):
    """Its bed is measured beside one of the same codes that nobody speaks over.

    So quiet that no peak is limited: a limiter would turn the two down at different moments.
    """
    form = {"theme": "calm piano", "intro": "2", "outro": "2", "transitions": "0", "seed": "5"}
    form["loudness"] = "-32"
    answers, beds = {}, {}
    for name, level in (("spoken", 0.1), ("silent", 0.0)):
        sent = {"data": form, "files": {"voice": speech(level=level)}}
        answers[name] = heard(await http.post(f"{ROOT}/podcast", **sent))
        beds[name] = answers[name].stem("bed") / np.abs(answers[name].stem("intro")).max()
    podcast = answers["spoken"]
    rate, spoken, bed = podcast.rate, podcast.start("voice"), podcast.start("bed")
    assert podcast.mix.shape == (1, 9 * rate)
    check_level(podcast, -32)
    np.testing.assert_allclose(podcast.summed(), podcast.mix, atol=5 / 32768)

    def under(start: float, end: float) -> float:
        part = slice(*(spoken - bed + round(at * rate) for at in (start, end)))
        levels = [float((beds[name][:, part] ** 2).mean()) for name in ("spoken", "silent")]
        return 10 * np.log10(levels[0] / levels[1])

    assert under(0.5, 1.9) == pytest.approx(DUCKED_DB, abs=0.5)
    assert under(3.6, 3.95) == pytest.approx(0, abs=1), "it has come back in the pause"
    assert under(4.4, 4.9) == pytest.approx(DUCKED_DB, abs=0.5)


async def test_an_ambience_goes_round_without_a_step(http: httpx.AsyncClient):
    body = {"environment": "ocean", "duration": 2.3, "seed": 5, "sample_rate": 44100}
    loop = heard(await http.post(f"{ROOT}/ambience", json=body))
    assert loop.mix.shape == (1, round(2.3 * 44100))
    check_level(loop, -23)
    steps = np.abs(np.diff(np.concatenate([loop.mix[0, -200:], loop.mix[0, :200]])))
    assert steps[199] <= max(steps[:199].max(), steps[200:].max())
