"""Tests that audio files are decoded, and that all other uploads give InvalidAudio."""

import io
import tracemalloc
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from audiocraft.data.audio_utils import convert_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.media_files import FILES, RATE, encode_with_ffmpeg, encode_with_soundfile, make_tone
from engine import resampling
from engine.errors import InvalidAudio
from engine.media import PADDING_S, decode, probe
from engine.params import MediaLimits

LIMITS = MediaLimits(max_bytes=2_000_000, max_seconds=20, max_channels=2)


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_audio(kind: str):
    data = FILES[kind]()
    assert abs(probe(data, LIMITS).seconds - 1.0) < 0.09
    audio = decode(data, LIMITS)
    samples = audio.array()
    assert audio.channels == 1
    assert abs(audio.samples / audio.sample_rate - 1.0) < 0.09, "but for the coders' own delay"
    spectrum = np.abs(np.fft.rfft(samples[0]))
    loudest = np.argmax(spectrum) * audio.sample_rate / samples.shape[1]
    assert abs(loudest - 440) < 3
    assert abs(np.sqrt((samples**2).mean()) - 0.5 / np.sqrt(2)) < 0.03


def test_lossless_is_lossless():
    audio = decode(encode_with_soundfile("WAV", "FLOAT", make_tone(channels=2)), LIMITS)
    assert audio.sample_rate == RATE
    np.testing.assert_array_equal(audio.array(), make_tone(channels=2).astype(np.float32))


def make_bomb() -> bytes:
    """Make a file with hours of silence in a few kilobytes."""
    return encode_with_soundfile("FLAC", audio=np.zeros((1, 3600 * RATE)))


def remove_sizes(data: bytes) -> bytes:
    """Set the sizes in a WAV header to "unknown", as a program that writes to a pipe does."""
    return data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]


BAD = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"this is no audio at all, but a sentence. " * 50, "cannot be read"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(500), "cannot be read"),
    "a playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "cannot be read"),
    "a concat list": (lambda: b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be read"),
    "a video": (lambda: encode_with_ffmpeg("mp4", "aac", video="mpeg4"), "is a video"),
    "no samples": (lambda: encode_with_soundfile("WAV", "PCM_16", np.zeros((1, 0))), "no samples"),
    "not numbers": (
        lambda: encode_with_soundfile("WAV", "FLOAT", np.full((1, 500), np.nan)),
        "not finite numbers",
    ),
    "cut wav": (lambda: encode_with_soundfile("WAV", "PCM_16")[:20000], "cut short"),
    "cut flac": (lambda: encode_with_soundfile("FLAC")[:5000], "cut short|cannot be read"),
    "cut m4a": (lambda: FILES["m4a"]()[:3000], "cannot be read|cut short"),
    "only a head": (lambda: encode_with_soundfile("WAV", "PCM_16")[:44], "no samples|cut short"),
    "too many bytes": (lambda: bytes(LIMITS.max_bytes + 1), "allowed: 2000000"),
    "too long": (lambda: encode_with_soundfile("WAV", "PCM_U8", make_tone(21)), "longer than 20 s"),
    "a bomb": (make_bomb, "longer than 20 s"),
    "too many channels": (
        lambda: encode_with_soundfile("WAV", "PCM_16", np.zeros((6, 500))),
        "6 channels; allowed: 1 to 2",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_audio_or_too_much_is_refused(kind: str):
    make, reason = BAD[kind]
    with pytest.raises(InvalidAudio, match=reason) as caught:
        decode(make(), LIMITS)
    assert "\n" not in str(caught.value)


def test_a_wav_from_a_pipe_is_read_to_its_end():
    audio = decode(remove_sizes(encode_with_soundfile("WAV", "PCM_16")), LIMITS)
    assert audio.samples == RATE


def test_a_bomb_is_stopped_while_it_unfolds():
    """Without a stated length, memory stays near the limit for the allowed length."""
    data = remove_sizes(encode_with_soundfile("WAV", "PCM_U8", np.zeros((1, 1_900_000))))
    tracemalloc.start()
    with pytest.raises(InvalidAudio, match="longer than 20 s"):
        decode(data, LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 20 * RATE * 4


@pytest.mark.parametrize("source", FILES)
def test_damaged_files_end_cleanly(source: str):
    """Files with changed bytes and a missing end are decoded or give InvalidAudio."""
    whole = FILES[source]()

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def decode_damaged(data: st.DataObject) -> None:
        broken = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 20))):
            at = data.draw(st.integers(0, len(broken) - 1))
            broken[at] = data.draw(st.integers(0, 255))
        end = data.draw(st.integers(1, len(broken)))
        try:
            audio = decode(bytes(broken[:end]), LIMITS)
        except InvalidAudio:
            return
        assert np.isfinite(audio.array()).all()
        assert audio.samples <= (LIMITS.max_seconds + PADDING_S) * audio.sample_rate

    decode_damaged()


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (16000, 1), (32000, 2), (48000, 1)])
@pytest.mark.parametrize("given_channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.3, 13])
def test_converting_is_audiocrafts(
    rate: int, channels: int, given_channels: int, seconds: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resampling, "BLOCK_S", 5)
    audio = make_tone(seconds, given_channels)
    file = encode_with_soundfile("WAV", "FLOAT", audio)
    made = decode(file, replace(LIMITS, max_bytes=10**7), rate, channels)
    expected = convert_audio(torch.tensor(audio.astype(np.float32)), RATE, rate, channels).numpy()
    assert (made.sample_rate, made.channels) == (rate, channels)
    np.testing.assert_array_equal(made.array(), expected)


def test_two_channels_do_not_become_three():
    with pytest.raises(InvalidAudio, match="send 1, 3 or more"):
        decode(encode_with_soundfile("WAV", "PCM_16", make_tone(channels=2)), LIMITS, RATE, 3)


@pytest.mark.parametrize("container", ["aac", "mp3"])
def test_a_length_that_ffmpeg_guesses_refuses_no_file(container: str):
    """The first seconds have fewer bits than the rest, so FFmpeg's guess is far too long."""
    audio = make_tone(20)
    audio[:, 4 * RATE :] += np.random.default_rng(0).normal(0, 0.2, (1, 16 * RATE))
    quality = {"aac": ("adts", "aac"), "mp3": ("mp3", "libmp3lame")}[container]
    coding = {"flags": "+qscale", "global_quality": "590"}  # a variable bit rate
    file = encode_with_ffmpeg(*quality, audio=audio, options={"write_xing": "0"}, coding=coding)
    with av.open(io.BytesIO(file)) as opened:
        stream = opened.streams.audio[0]
        assert float(stream.duration * stream.time_base) > 21, "FFmpeg guesses no wrong length"
    assert probe(file, LIMITS).seconds == pytest.approx(20, abs=0.1)
    assert decode(file, LIMITS).seconds == pytest.approx(20, abs=0.1)
    with pytest.raises(InvalidAudio, match="longer than 19"):
        decode(file, replace(LIMITS, max_seconds=19))
    with pytest.raises(InvalidAudio, match="longer than 19"):
        probe(file, replace(LIMITS, max_seconds=19))


@pytest.mark.parametrize("kind", ["aac", "mp3", "m4a", "opus"])
def test_a_coders_padding_refuses_no_file_of_the_longest_length(kind: str):
    containers = {"aac": "adts", "mp3": "mp3", "m4a": "ipod", "opus": "ogg"}
    codecs = {"mp3": "libmp3lame", "opus": "libopus"}
    file = encode_with_ffmpeg(containers[kind], codecs.get(kind, "aac"), 20)
    probe(file, LIMITS)
    assert decode(file, LIMITS).seconds == pytest.approx(20, abs=PADDING_S)
