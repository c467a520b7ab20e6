"""Tests that multi-band diffusion equals AudioCraft for the same noise, with a seed per request."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from audiocraft.models import MultiBandDiffusion
from audiocraft.models.multibanddiffusion import DiffusionProcess
from torch import Tensor
from transformers import EncodecConfig, EncodecModel

from engine.codec import Codec
from engine.diffusion import STEPS, Diffusion, Job, draw_normal
from engine.errors import Cancelled, CheckpointMismatch, GenerationFailed, InvalidRequest
from engine.params import Codes, CodesPiece, Waveform
from tests import checkpoints as write
from tests.parity import Parity

FRAMES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("diffusion")
    write.write_codec(folder / "codec")
    write.write_diffusion(folder / "mbd_musicgen_32khz.th")
    return folder


@pytest.fixture(scope="module")
def diffusion(folder: Path) -> Diffusion:
    return Diffusion.load(str(folder), str(folder / "codec"), device="cpu")


def draw_codes(frames: int = FRAMES, seed: int = 0) -> Codes:
    return Codes.pack(np.random.default_rng(seed).integers(0, 512, (4, frames)))


def generate_clips(diffusion: Diffusion, *jobs: Job) -> list[Waveform]:
    clips = diffusion.generate(jobs)
    assert all(isinstance(clip, Waveform) for clip in clips)
    return clips  # type: ignore[return-value]


def generate_with_audiocraft(diffusion: Diffusion, job: Job, samples: int) -> np.ndarray:
    """Decode a job with AudioCraft's class and our noise; return [1, samples]."""
    theirs = MultiBandDiffusion(
        [DiffusionProcess(band.model, band.schedule) for band in diffusion._bands],
        diffusion._codec,
    )

    def draw_noises() -> Iterator[Tensor]:
        for band in range(len(diffusion._bands)):
            for step in range(len(STEPS) - 1):
                yield draw_normal(job.seed, band, step, (1, samples))[None]

    draws = draw_noises()
    tokens = torch.tensor(job.codes.array().astype(np.int64))[None]
    size = torch.Size([1, 1, samples])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like: next(draws))
        if job.equalize:
            expected = theirs.tokens_to_wav(tokens)
        else:
            expected = theirs.generate(theirs.get_emb(tokens), size=size)
    assert next(draws, None) is None, "as many draws as AudioCraft makes"
    return expected[0].numpy()


@pytest.mark.parametrize(
    ("equalize", "samples"), [(True, FRAMES * 320), (False, FRAMES * 320), (False, 3700)]
)
def test_samples_are_audiocrafts_for_the_same_noise(
    diffusion: Diffusion, equalize: bool, samples: int, parity: Parity
):
    """The clips equal `tokens_to_wav`, and `regenerate` for its input's codes and length."""
    job = Job(draw_codes(), seed=7, equalize=equalize, samples=samples)
    (clip,) = generate_clips(diffusion, job)
    expected = generate_with_audiocraft(diffusion, job, samples)
    what = "`tokens_to_wav`" if equalize else "`regenerate`, after the codec"
    what += " for the same noise, of the largest sample"
    scale = float(np.abs(expected).max())
    assert parity("mbd for musicgen", what, clip.array(), expected, scale) < 1e-5


def test_the_seed_decides_whoever_shares_the_batch(diffusion: Diffusion):
    (alone,) = generate_clips(diffusion, Job(draw_codes(), seed=1))
    jobs = [Job(draw_codes(seed=2), seed=3), Job(draw_codes(), seed=1), Job(draw_codes(5), seed=1)]
    together = generate_clips(diffusion, *jobs)
    assert together[1].data == alone.data
    assert together[2].samples == 5 * 320
    (other,) = generate_clips(diffusion, Job(draw_codes(), seed=2))
    assert other.data != alone.data


def test_progress_and_cancelling_within_one_step(
    diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    staying, leaving = Job(draw_codes(), seed=1), Job(draw_codes(), seed=2)
    # As on a GPU, where clips of equal shape are made together.
    group = diffusion._decode_group
    seen: list[int] = []
    model = diffusion._bands[0].model
    evaluate = model.forward

    def forward(x: Tensor, *args: object, **kwargs: object) -> object:
        seen.append(len(x))
        leaving.cancelled = leaving.evaluated == 2
        return evaluate(x, *args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    clip, gone = group([staying, leaving])
    assert isinstance(clip, Waveform)
    assert isinstance(gone, Cancelled)
    assert leaving.evaluated == 3
    assert seen == [2] * 3 + [1] * (len(STEPS) - 4)
    assert staying.evaluated == diffusion.evaluations
    (alone,) = generate_clips(diffusion, Job(draw_codes(), seed=1))
    assert np.abs(alone.array() - clip.array()).max() < 1e-4
    assert isinstance(diffusion.generate([Job(draw_codes(), 1, cancelled=True)])[0], Cancelled)


def test_it_follows_the_codecs_levels(diffusion: Diffusion, folder: Path):
    """The equaliser gives the clip the standard deviation of the codec's own output."""
    (clip,) = generate_clips(diffusion, Job(draw_codes(50), seed=1))
    (own,) = Codec.load(str(folder / "codec"), device="cpu").decode([CodesPiece(draw_codes(50))])
    assert clip.array().std() == pytest.approx(own.audio.array().std(), rel=0.1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((2, 9), int), "takes 4"),
        (np.zeros((4, 0), int), "no frames"),
        (np.full((4, 3), 600), "from 0 to 511"),
    ],
)
def test_bad_codes_fail_alone(diffusion: Diffusion, bad: np.ndarray, reason: str):
    error, clip = diffusion.generate([Job(Codes.pack(bad), 1), Job(draw_codes(2), 1)])
    assert isinstance(error, InvalidRequest)
    assert reason in str(error)
    assert isinstance(clip, Waveform)


def test_what_is_not_a_number_is_an_error(diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch):
    processor = diffusion._bands[1].schedule.sample_processor
    monkeypatch.setattr(processor, "return_sample", lambda x: x * torch.nan)
    (error,) = diffusion.generate([Job(draw_codes(), 1)])
    assert isinstance(error, GenerationFailed)


def test_another_codecs_latents_are_refused(folder: Path, tmp_path: Path):
    write.write_codec(tmp_path)
    package = torch.load(folder / "mbd_musicgen_32khz.th", weights_only=False)
    for band in range(2):
        package[band]["cfg"].diffusion_unet.codec_dim = 32
        state = package[band]["model_state"]
        state["conv_codec.weight"] = state["conv_codec.weight"][:, :32]
    torch.save(package, tmp_path / "mbd_musicgen_32khz.th")
    with pytest.raises(CheckpointMismatch, match=r"latents of \[32\].* has 64"):
        Diffusion.load(str(tmp_path), str(tmp_path), device="cpu")


@pytest.mark.parametrize("codebooks", [2, 4, 8])
def test_24_khz_at_its_three_bandwidths(codebooks: int, tmp_path: Path, parity: Parity):
    """`mbd_comp_N.pt` takes the first N codebooks of EnCodec at 24 kHz (1.5, 3 and 6 kbit/s)."""
    config = EncodecConfig(num_filters=4, hidden_size=64, codebook_dim=64, codebook_size=1024)
    EncodecModel(config).eval().save_pretrained(tmp_path / "codec")
    write.write_diffusion(tmp_path / f"mbd_comp_{codebooks}.pt", bands=4)
    diffusion = Diffusion.load(
        str(tmp_path),
        str(tmp_path / "codec"),
        device="cpu",
        filename=f"mbd_comp_{codebooks}.pt",
    )
    assert (diffusion.info.codebooks, diffusion.info.sample_rate) == (codebooks, 24000)
    draw = np.random.default_rng(0)
    job = Job(Codes.pack(draw.integers(0, 1024, (codebooks, 6))), seed=1, equalize=False)
    assert diffusion.evaluations == 4 * (len(STEPS) - 1)
    (clip,) = diffusion.generate([job])
    assert isinstance(clip, Waveform)
    assert (clip.samples, job.evaluated) == (6 * 320, diffusion.evaluations)
    expected = generate_with_audiocraft(diffusion, job, clip.samples)
    what = "`generate` for the same noise, of the largest sample"
    scale = float(np.abs(expected).max())
    assert parity(f"mbd_comp_{codebooks}, 24 kHz", what, clip.array(), expected, scale) < 1e-5
