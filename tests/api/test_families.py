"""Every published family, from its files to a WAV over HTTP: what AudioCraft makes of them."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import demucs.pretrained
import httpx
import numpy as np
import pytest
import soundfile
import torch
from audiocraft.data.audio_utils import convert_audio
from audiocraft.models import AudioGen, MusicGen

from api.ingress import create_app
from api.settings import UserConfig
from deployments.settings import AudioGenSettings, EnCodecSettings, MusicGenSettings
from engine.codec import Codec
from engine.engine import EngineSettings
from engine.language_model import LanguageModel
from engine.params import Codes, Generated, GenerationParams
from tests.api.conftest import Media, Method, Real, serving
from tests.api.test_uploads import wav
from tests.conftest import Checkpoints
from tests.families import FAMILIES, Family, write_family
from tests.parity import Parity

pytestmark = pytest.mark.slow
DURATION, SEED = 0.6, 3
TEXT = "calm piano, and thunder far away"


class Local:
    """A language model's deployment, in this process."""

    def __init__(self, folder: Path) -> None:
        settings = EngineSettings(max_slots=2, max_text_tokens=64)
        self.model = LanguageModel.load(
            str(folder), settings, device="cpu", frame_rate=50, stride_seconds=18
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

    async def remote(self, params: GenerationParams, *sizes: float) -> AsyncIterator[Generated]:
        request = self.model.prepare(params)
        async for part in self.model.loop.generate(request, int(sizes[0]), int(sizes[1])):
            yield Generated(Codes.pack(part), *request.seconds_waited_and_run())


@asynccontextmanager
async def served(folder: Path, family: Family) -> AsyncIterator[httpx.AsyncClient]:
    settings = MusicGenSettings if family.kind == "musicgen" else AudioGenSettings
    models = [
        settings(name="model", kind=family.kind, checkpoint=str(folder), codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint=str(folder), stereo=family.stereo),
    ]
    local = Local(folder)
    codec = Codec.load(str(folder), device="cpu", stereo=family.stereo)
    handles = {"model": local, "codec": Real(codec), "media": Media()}

    service = serving(models, handles, UserConfig())
    transport = httpx.ASGITransport(create_app(service))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http
    finally:
        local.model.loop.close()


def by_audiocraft(
    folder: Path, family: Family, monkeypatch: pytest.MonkeyPatch, melody: bytes | None
) -> np.ndarray:
    """Greedy audio of AudioCraft's own class, [channels, samples]."""
    separator = torch.nn.Identity()
    separator.sources = ["drums", "bass", "other", "vocals"]
    monkeypatch.setattr(demucs.pretrained, "get_model", lambda name: separator)
    load: Callable[[str], MusicGen] = (
        MusicGen.get_pretrained if family.kind == "musicgen" else AudioGen.get_pretrained
    )
    model = load(str(folder))
    stride = 18 if family.kind == "musicgen" else 2
    model.set_generation_params(use_sampling=False, duration=DURATION, extend_stride=stride)
    if melody is None:
        return model.generate([TEXT])[0].numpy()
    chroma = model.lm.condition_provider.conditioners["self_wav"]
    as_it_is = lambda audio, rate: convert_audio(audio, rate, chroma.sample_rate, 1)  # noqa: E731
    monkeypatch.setattr(chroma, "_get_stemmed_wav", as_it_is)
    audio, rate = soundfile.read(io.BytesIO(melody), dtype="float32", always_2d=True)
    return model.generate_with_chroma([TEXT], torch.tensor(audio.T)[None], rate)[0].numpy()


@pytest.mark.parametrize("name", FAMILIES)
async def test_a_family_from_its_files_to_a_wav(
    name: str,
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parity: Parity,
):
    torch.manual_seed(SEED)
    family = write_family(name, checkpoints.text_encoder, tmp_path)
    melody = wav(1.0, rate=44100) if family.melody else None
    body = {"prompt": TEXT, "duration": DURATION, "greedy": True, "seed": 1}
    form = {name: str(value).lower() for name, value in body.items()}
    sent = {"data": form, "files": {"melody": melody}} if melody else {"json": body}
    async with served(tmp_path, family) as http:
        response = await http.post("/v1/generations", **sent)
    assert response.status_code == 200, response.text
    audio, rate = soundfile.read(io.BytesIO(response.content), dtype="float32", always_2d=True)
    expected = by_audiocraft(tmp_path, family, monkeypatch, melody)
    assert rate == family.sample_rate
    assert audio.T.shape == (1 + family.stereo, int(DURATION * rate))
    what = "files to a 16-bit WAV over HTTP"
    assert parity(name, what, audio.T, expected.clip(-1, 1)) <= 1 / 32768
