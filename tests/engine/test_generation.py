"""Tests that the reference model and the codec equal AudioCraft."""

import numpy as np
import pytest
import torch
from audiocraft.models import MusicGen, loaders

from benchmarks.reference import ReferenceModel
from engine.codec import Codec
from engine.errors import Cancelled, InvalidRequest
from engine.params import Codes, CodesPiece, GenerationParams
from tests.conftest import Checkpoints


@pytest.fixture(scope="module")
def model(checkpoints: Checkpoints) -> ReferenceModel:
    return ReferenceModel.load(str(checkpoints.music), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def codec(checkpoints: Checkpoints) -> Codec:
    return Codec.load(str(checkpoints.codec), device="cpu")


@pytest.fixture(scope="module")
def audiocraft(checkpoints: Checkpoints) -> MusicGen:
    """The checkpoint, loaded and run by AudioCraft alone."""
    lm = loaders.load_lm_model(str(checkpoints.music))
    return MusicGen("reference", loaders.load_compression_model(str(checkpoints.codec)), lm)


def never_cancelled() -> bool:
    return False


def generate(model: ReferenceModel, **changes: object) -> np.ndarray:
    params = GenerationParams(**{"text": "calm piano", "frames": 30, "seed": 7, **changes})
    return model.generate(params, never_cancelled).array()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7, "top_k": 20},
        {"top_p": 0.8},
        {"guidance_scale": 1.0, "text": "rain, wind"},
        {"temperature": 0.0},
        {"text": "<extra_id_0> <pad> </s> \U0001f3b5 \x00"},
    ],
)
def test_codes_and_audio_are_audiocrafts(
    model: ReferenceModel, codec: Codec, audiocraft: MusicGen, settings: dict[str, object]
):
    ours = generate(model, **settings)
    names = {"guidance_scale": "cfg_coef"}
    options = {names.get(k, k): v for k, v in settings.items() if k != "text"}
    audiocraft.set_generation_params(
        duration=0.6, use_sampling=settings.get("temperature") != 0.0, **options
    )
    torch.manual_seed(7)
    audio, codes = audiocraft.generate(
        [str(settings.get("text", "calm piano"))], return_tokens=True
    )
    np.testing.assert_array_equal(ours, codes[0].numpy())
    (decoded,) = codec.decode([CodesPiece(Codes.pack(ours))])
    np.testing.assert_array_equal(decoded.audio.array(), audio[0].numpy())


def test_the_seed_decides(model: ReferenceModel):
    first = generate(model, seed=1)
    np.testing.assert_array_equal(first, generate(model, seed=1))
    assert (first != generate(model, seed=2)).any()


def test_top_k_may_exceed_the_vocabulary(model: ReferenceModel):
    np.testing.assert_array_equal(generate(model, top_k=65536), generate(model, top_k=512))


def test_the_text_matters(model: ReferenceModel):
    assert (generate(model, text="calm 1") != generate(model, text="calm 2")).any()


@pytest.mark.parametrize("frames", [1, 2, 200])
def test_as_many_frames_as_asked(model: ReferenceModel, frames: int):
    assert generate(model, frames=frames).shape == (4, frames)


def test_half_precision_refuses_what_would_overflow(checkpoints: Checkpoints):
    half = ReferenceModel.load(str(checkpoints.music), device="cpu", dtype="float16")
    with pytest.raises(InvalidRequest, match=r"at least 0\.1"):
        generate(half, temperature=0.05)


def test_cancelled_within_one_step(model: ReferenceModel):
    begun = model.steps

    def after_three_steps() -> bool:
        return model.steps - begun >= 3

    with pytest.raises(Cancelled):
        model.generate(GenerationParams("x", frames=100, seed=0), after_three_steps)
    assert model.steps - begun == 3
