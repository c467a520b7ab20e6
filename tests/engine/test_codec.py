"""Tests that decoding and encoding, whole or in pieces, equals AudioCraft for each clip alone."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from audiocraft.models import builders
from audiocraft.models.encodec import (
    CompressionModel,
    HFEncodecCompressionModel,
    InterleaveStereoCompressionModel,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import EncodecConfig, EncodecModel

from bundles.tiny.recipe import codec_config, export, fill_codebooks
from engine.checkpoints import CODEC_FILE
from engine.codec import Codec
from engine.errors import CheckpointMismatch, InvalidRequest
from engine.params import AudioPiece, Codes, CodesPiece, Waveform
from tests import checkpoints as write
from tests.parity import Parity

FRAMES = 40
RATE = 16000


def build_audiocraft_codec() -> CompressionModel:
    model = builders.get_compression_model(codec_config()).eval()
    fill_codebooks(model)
    return model


def build_transformers_codec() -> CompressionModel:
    config = EncodecConfig(
        sampling_rate=RATE, upsampling_ratios=[8, 5, 4, 2], num_filters=4, hidden_size=16,
        codebook_size=64, codebook_dim=16, target_bandwidths=[0.3, 0.6, 1.2],
    )  # fmt: skip
    model = EncodecModel(config).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()  # its own start is zeros, by which all codes are alike
    return HFEncodecCompressionModel(model)


STEREO = "EnCodec, stereo by a mono codec"
MODELS: dict[str, Callable[[], CompressionModel]] = {
    "EnCodec": build_audiocraft_codec,
    "EnCodec of transformers (24, 48 kHz)": build_transformers_codec,
    STEREO: lambda: InterleaveStereoCompressionModel(build_audiocraft_codec()),
}


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def codec(name: str) -> Codec:
    torch.manual_seed(0)
    return Codec(MODELS[name]())


@pytest.fixture(scope="module")
def own() -> Codec:
    torch.manual_seed(0)
    return Codec(build_audiocraft_codec())


def test_one_that_cannot_run_in_pieces_is_refused_by_name(tmp_path: Path):
    cfg = codec_config()
    cfg.encodec.renormalize = True
    export(builders.get_compression_model(cfg), cfg, tmp_path / CODEC_FILE)
    with pytest.raises(CheckpointMismatch, match=r"normalises its input, which is not served"):
        Codec.load(str(tmp_path), device="cpu")


def draw_codes(codec: Codec, frames: int = FRAMES) -> NDArray[np.integer]:
    draw = np.random.default_rng(0)
    return draw.integers(0, codec.info.cardinality, (codec.info.codebooks, frames))


def draw_audio(codec: Codec, samples: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(0)
    return draw.normal(0, 0.1, (codec.info.channels, samples)).astype(np.float32)


def decode_pieces(codec: Codec, *pieces: CodesPiece) -> list[AudioPiece]:
    made = codec.decode(pieces)
    assert all(isinstance(one, AudioPiece) for one in made)
    return made  # type: ignore[return-value]


def test_whole_clips_are_audiocrafts(name: str, codec: Codec, parity: Parity):
    codes = draw_codes(codec)
    (made,) = decode_pieces(codec, CodesPiece(Codes.pack(codes)))
    with torch.inference_mode():
        theirs = codec.model.decode(torch.from_numpy(codes)[None], None)[0].numpy()
    assert parity(name, "a clip's codes to samples", made.audio.array(), theirs) == 0
    audio = draw_audio(codec, RATE + 17)
    (piece,) = codec.encode([AudioPiece(Waveform.pack(audio, RATE))])
    with torch.inference_mode():
        codes, _ = codec.model.encode(torch.from_numpy(audio)[None])
    assert parity(name, "a clip's samples to codes", piece.codes.array(), codes[0].numpy()) == 0


def test_the_loudest_audio_is_encoded_as_by_audiocraft(name: str, codec: Codec, parity: Parity):
    """Audio of 1e30 became zeros; up to the limit the codes still follow the audio."""
    audio = np.where(draw_audio(codec, RATE) > 0, 1000, -1000).astype(np.float32)
    (piece,) = codec.encode([AudioPiece(Waveform.pack(audio, RATE))])
    assert isinstance(piece, CodesPiece)
    with torch.inference_mode():
        codes, _ = codec.model.encode(torch.from_numpy(audio)[None])
    loudest = "a clip's samples to codes, at 1000 times full scale"
    assert parity(name, loudest, piece.codes.array(), codes[0].numpy()) == 0
    assert len(np.unique(piece.codes.array())) > 10


def test_a_codec_is_probed(codec: Codec):
    codec.probe()
    assert codec.done


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, FRAMES - 1)))
def test_pieces_joined_are_the_whole(name: str, codec: Codec, parity: Parity, cuts: set[int]):
    codes, state, parts = draw_codes(codec), b"", []
    for start, end in pairwise([0, *sorted(cuts), FRAMES]):
        piece = CodesPiece(Codes.pack(codes[:, start:end]), state, ended=end == FRAMES)
        (made,) = decode_pieces(codec, piece)
        parts.append(made.audio.array())
        state = made.state
    joined = np.concatenate(parts, axis=1)
    with torch.inference_mode():
        theirs = codec.model.decode(torch.from_numpy(codes)[None], None)[0].numpy()
    assert joined.shape == (codec.info.channels, FRAMES * 320)
    assert parity(name, "codes to samples in random pieces, joined", joined, theirs) <= 1e-5


def test_the_end_may_be_said_with_no_more_codes(own: Codec):
    codes = draw_codes(own)
    (begun,) = decode_pieces(own, CodesPiece(Codes.pack(codes), ended=False))
    (rest,) = decode_pieces(own, CodesPiece(Codes.pack(codes[:, :0]), begun.state))
    assert begun.audio.samples + rest.audio.samples == FRAMES * 320
    assert rest.state == b""


@pytest.mark.parametrize("samples", [RATE * 3, RATE * 3 + 1, RATE * 3 - 1])
def test_encoding_in_pieces(codec: Codec, samples: int):
    """Pieces give as many frames as the whole clip, and equal codes except for near ties."""
    audio, state, parts = draw_audio(codec, samples), b"", []
    for start, end in pairwise([0, RATE, RATE + 333, samples]):
        wave = Waveform.pack(audio[:, start:end], RATE)
        (made,) = codec.encode([AudioPiece(wave, state, ended=end == samples)])
        assert isinstance(made, CodesPiece)
        parts.append(made.codes.array())
        state = made.state
    (whole,) = codec.encode([AudioPiece(Waveform.pack(audio, RATE))])
    assert isinstance(whole, CodesPiece)
    joined = np.concatenate(parts, axis=1)
    assert joined.shape == (codec.info.codebooks, -(-samples // 320))
    assert (joined == whole.codes.array()).mean() > 0.99


def test_the_first_codebooks_alone(own: Codec):
    codes = draw_codes(own)[:2]
    (made,) = decode_pieces(own, CodesPiece(Codes.pack(codes)))
    with torch.inference_mode():
        theirs = own.model.decode(torch.from_numpy(codes)[None], None)[0].numpy()
    np.testing.assert_array_equal(made.audio.array(), theirs)


def test_a_batch_gives_what_each_request_gets_alone(own: Codec):
    pieces = [CodesPiece(Codes.pack(draw_codes(own, frames))) for frames in (5, 20, 5, 1)]
    for piece, made in zip(pieces, decode_pieces(own, *pieces), strict=True):
        (alone,) = decode_pieces(own, piece)
        assert made.audio.data == alone.audio.data
        assert made.audio.array().shape == (1, piece.codes.frames * 320)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (np.full((4, 3), 512), "from 0 to 511"),
        (np.full((4, 3), -1), "from 0 to 511"),
        (np.zeros((5, 3), int), "1 to 4"),
        (np.zeros((4, 0), int), "no frames"),
    ],
)
def test_bad_codes_fail_alone(own: Codec, codes: np.ndarray, reason: str):
    good = CodesPiece(Codes.pack(np.zeros((4, 3), int)))
    error, made = own.decode([CodesPiece(Codes.pack(codes)), good])
    assert isinstance(error, InvalidRequest)
    assert reason in str(error)
    assert isinstance(made, AudioPiece)


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (Waveform.pack(np.zeros((1, 10)), 24000), "16000 Hz"),
        (Waveform.pack(np.zeros((2, 10)), RATE), "1 channels"),
        (Waveform.pack(np.zeros((1, 0)), RATE), "no samples"),
        (Waveform.pack(np.full((1, 9), np.nan), RATE), "not finite numbers"),
        (Waveform.pack(np.full((1, 9), -1e30), RATE), "beyond 1000 times full scale"),
    ],
)
def test_bad_audio_fails_alone(own: Codec, wave: Waveform, reason: str):
    good = AudioPiece(Waveform.pack(np.zeros((1, 640)), RATE))
    error, made = own.encode([AudioPiece(wave), good])
    assert isinstance(error, InvalidRequest)
    assert reason in str(error)
    assert isinstance(made, CodesPiece)


def test_a_mono_codec_of_a_file_becomes_stereo(tmp_path: Path):
    """As for musicgen-stereo, left and right are decoded as by the mono codec alone."""
    mono = write.write_codec(tmp_path)
    codec = Codec.load(str(tmp_path), device="cpu", stereo=True)
    assert (codec.info.codebooks, codec.info.channels) == (8, 2)
    codes = draw_codes(codec)
    (made,) = decode_pieces(codec, CodesPiece(Codes.pack(codes)))
    for channel in range(2):
        (alone,) = decode_pieces(Codec(mono), CodesPiece(Codes.pack(codes[channel::2])))
        assert np.abs(made.audio.array()[channel] - alone.audio.array()).max() < 2e-3, (
            "half precision"
        )


def test_stereo_needs_both_channels_codes():
    codec = Codec(MODELS[STEREO]())
    (error,) = codec.decode([CodesPiece(Codes.pack(np.zeros((4, 3), int)))])
    assert isinstance(error, InvalidRequest)
    assert "8 codebooks" in str(error)
