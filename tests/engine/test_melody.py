"""Tests that a melody is followed as in `MusicGen.generate_with_chroma`, in every window."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from audiocraft.models import MusicGen
from audiocraft.models.encodec import CompressionModel
from audiocraft.modules.conditioners import WavCondition

from engine.checkpoints import load_codec, load_language_model
from engine.conditioning import MELODY as MELODY_NAME
from engine.conditioning import build_attributes, encode_conditions, encode_melody
from engine.engine import EngineSettings
from engine.errors import InvalidRequest
from engine.language_model import LanguageModel
from engine.params import Codes, GenerationParams, Waveform
from tests import checkpoints as write
from tests.conftest import Checkpoints
from tests.engine.test_exactness import spread_logits
from tests.parity import Parity

RATE, WINDOW_S, STRIDE_S = 16000, 2.0, 1.5
MELODY = Waveform.pack(np.sin(np.arange(20000) * np.linspace(0.1, 0.3, 20000))[None], RATE)
SETTINGS = EngineSettings(max_slots=2, max_text_tokens=64, prefill_chunk=50)


@pytest.fixture(scope="module")
def pair(
    checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LanguageModel, MusicGen]]:
    """The engine and AudioCraft with one shared model, without a stem separator."""
    folder = tmp_path_factory.mktemp("melody")
    cfg = write.melody_config()
    cfg.dataset.segment_duration = WINDOW_S
    write.write_language_model(folder, checkpoints.text_encoder, cfg)
    lm = spread_logits(load_language_model(str(folder), device="cpu", dtype="float32"))
    codec: CompressionModel = load_codec(str(checkpoints.codec), device="cpu")
    model = LanguageModel(lm, SETTINGS, frame_rate=50, stride_seconds=18)
    audiocraft = MusicGen("reference", codec, lm, max_duration=30)
    audiocraft.max_duration = WINDOW_S  # its constructor wants more than its default stride
    yield model, audiocraft
    model.loop.close()


async def generate_with_engine(model: LanguageModel, params: GenerationParams) -> np.ndarray:
    request = model.prepare(params)
    return np.concatenate([part async for part in model.loop.generate(request)], axis=1)


def test_a_cut_melody_conditions_as_the_whole_one(pair: tuple[LanguageModel, MusicGen]):
    """A clip of one window hears only the first part of a long file, and gets the same."""
    model, _ = pair
    samples = np.sin(np.arange(60 * RATE) * np.linspace(0.05, 0.4, 60 * RATE))[None]
    whole = encode_conditions(
        model._lm, build_attributes(model._lm, "calm piano", samples.astype(np.float32))
    )
    params = GenerationParams("calm piano", 20, 0, melody=Waveform.pack(samples, RATE))
    prepared = model.prepare(params)
    assert prepared.conditions.prefix is not None
    assert whole.prefix is not None
    torch.testing.assert_close(prepared.conditions.prefix, whole.prefix)


@pytest.mark.parametrize("seconds", [1.0, 2.0, 4.6])
def test_greedy_codes_are_audiocrafts(
    pair: tuple[LanguageModel, MusicGen], seconds: float, parity: Parity
):
    model, audiocraft = pair
    audiocraft.set_generation_params(
        use_sampling=False, duration=seconds, extend_stride=STRIDE_S, cfg_coef=3.0
    )
    wave = torch.tensor(MELODY.array())
    _, theirs = audiocraft.generate_with_chroma(
        ["calm piano"], wave[None], RATE, return_tokens=True
    )
    params = GenerationParams(
        "calm piano", int(seconds * 50), 0, temperature=0.0, stride_seconds=STRIDE_S, melody=MELODY
    )
    ours = asyncio.run(generate_with_engine(model, params))
    what = "greedy codes by a melody, also in windows (`generate_with_chroma`)"
    assert parity("language models", what, ours, theirs[0].numpy()) == 0


def test_the_melody_matters_in_later_windows(pair: tuple[LanguageModel, MusicGen]):
    model, _ = pair
    params = GenerationParams(
        "calm piano", 200, 0, temperature=0.0, stride_seconds=STRIDE_S, melody=MELODY
    )
    request = model.prepare(params)
    assert len(request.later) == 2
    prefixes = [request.conditions.prefix, *(one.prefix for one in request.later)]
    assert not torch.equal(prefixes[0], prefixes[1])
    assert not torch.equal(prefixes[1], prefixes[2])


def test_clips_of_one_request_share_the_encoded_melody(
    pair: tuple[LanguageModel, MusicGen], monkeypatch: pytest.MonkeyPatch
):
    """Also where the clips have many windows, and whatever their texts and variations are."""
    model, _ = pair
    conditioner = model._lm.condition_provider.conditioners[MELODY_NAME]
    encode, encoded = conditioner._get_wav_embedding, list[int]()

    def count(condition: WavCondition) -> torch.Tensor:
        if condition.wav.shape[-1] > 1:  # the null melody has one sample
            encoded.append(condition.wav.shape[-1])
        return encode(condition)

    monkeypatch.setattr(conditioner, "_get_wav_embedding", count)
    samples = np.cos(np.arange(40000) * np.linspace(0.1, 0.3, 40000))[None]
    params = GenerationParams(
        "calm piano", 290, 0, stride_seconds=0.2, melody=Waveform.pack(samples, RATE)
    )
    windows = 20
    for text in ("calm piano", "thunder", "rain"):
        for variation in range(2):
            request = model.prepare(replace(params, text=text, variation=variation))
            assert len(request.later) == windows - 1
    assert len(encoded) == windows


def test_a_shared_melody_conditions_as_one_of_its_own(pair: tuple[LanguageModel, MusicGen]):
    model, _ = pair
    shared = encode_melody(model._lm, MELODY.array())
    for text in ("calm piano", "thunder and rain"):
        alone = encode_conditions(model._lm, build_attributes(model._lm, text, MELODY.array()))
        joined = encode_conditions(model._lm, build_attributes(model._lm, text), shared)
        assert alone.prefix is not None
        assert joined.prefix is not None
        assert torch.equal(alone.prefix, joined.prefix)


def test_a_prompt_beyond_the_first_window_begins_in_a_later_one(
    pair: tuple[LanguageModel, MusicGen],
):
    model, _ = pair
    prompt = Codes.pack(np.random.default_rng(0).integers(0, 512, (4, 120)))
    params = GenerationParams("x", 200, 0, stride_seconds=STRIDE_S, melody=MELODY, prompt=prompt)
    assert len(model.prepare(params).later) == 1


def fill_codes(shape: tuple[int, int], value: int = 0) -> Codes:
    return Codes.pack(np.full(shape, value))


@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"melody": Waveform.pack(np.zeros((1, 9)), 8000)}, "melody", "16000 Hz, mono"),
        ({"melody": Waveform.pack(np.zeros((2, 9)), RATE)}, "melody", "16000 Hz, mono"),
        ({"melody": Waveform.pack(np.zeros((1, 0)), RATE)}, "melody", "no samples"),
        ({"melody": Waveform.pack(np.full((1, 9), 1e30), RATE)}, "melody", "times full scale"),
        ({"temperature": 1e-40}, "temperature", "at least 0.01"),
        ({"temperature": -1.0}, "temperature", "at least 0.01"),
        ({"temperature": float("nan")}, "temperature", "at least 0.01"),
        ({"melody": Waveform.pack(np.full((1, 9), np.nan), RATE)}, "melody", "not finite numbers"),
        ({"stride_seconds": 2.0}, "extend_stride", "below 2 s"),
        ({"stride_seconds": 0.01}, "extend_stride", "at least 0.2 s"),
        ({"prompt": fill_codes((2, 3))}, "continue_from", "2 codebooks; this model has 4"),
        ({"prompt": fill_codes((4, 30))}, "continue_from", "longer duration"),
        ({"prompt": fill_codes((4, 3), 512)}, "continue_from", "from 0 to 511"),
    ],
)
def test_what_cannot_be_done_is_refused(
    pair: tuple[LanguageModel, MusicGen], changes: dict[str, object], param: str, reason: str
):
    params = GenerationParams(**({"text": "x", "frames": 30, "seed": 0} | changes))
    with pytest.raises(InvalidRequest, match=reason) as caught:
        pair[0].prepare(params)
    assert caught.value.param == param


def test_a_model_of_text_alone_follows_no_melody(checkpoints: Checkpoints):
    model = LanguageModel.load(
        str(checkpoints.music), SETTINGS, device="cpu", frame_rate=50, stride_seconds=18
    )
    try:
        with pytest.raises(InvalidRequest, match="cannot follow a melody"):
            model.prepare(GenerationParams("x", 30, 0, melody=MELODY))
    finally:
        model.loop.close()
