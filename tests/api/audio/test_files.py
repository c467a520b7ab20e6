"""Files of every kind: what goes in comes out of another decoder, whole and streamed."""

import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import soundfile

from api.audio.encoder import Encoder, encode_samples
from api.audio.output import FORMATS, Output
from api.audio.tags import AI_GENERATED, Tags
from engine import media
from engine.errors import InvalidRequest
from engine.params import MediaLimits

RATE = 16000
TAGS = Tags("music", 7, {"top_k": 250}, prompt="héavy <rain> & thunder")
LIMITS = MediaLimits(10**8, 60, 2)
LOSSLESS = [
    Output("wav"),
    Output("wav", "s24"),
    Output("wav", "f32"),
    Output("flac"),
    Output("flac", "s24"),
]
LOSSY = [Output("mp3"), Output("opus"), Output("ogg"), Output("aac")]


def tone(seconds: float = 1.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """Sines of another pitch a channel, with a bound of 0.5 and edges that are soft."""
    time = np.arange(int(seconds * rate)) / rate
    pitches = 440.0 * np.arange(1, channels + 1)[:, None]
    return (0.5 * np.sin(2 * np.pi * pitches * time) * np.sin(np.pi * time / seconds)).astype("f4")


def streamed(samples: np.ndarray, output: Output) -> list[bytes]:
    encoder = Encoder(output, RATE, *samples.shape, TAGS, streamed=True)
    cuts = [0, 0, 1, 700, 4801, 4801, 8000, samples.shape[1]]
    parts = [encoder.add_samples(samples[:, a:b]) for a, b in pairwise(cuts)]
    return [*parts, encoder.finish()]


def read(file: bytes) -> tuple[np.ndarray, int]:
    made = media.decode(file, LIMITS)
    return made.array(), made.sample_rate


def likeness(audio: np.ndarray, known: np.ndarray) -> float:
    """How much of a known clip is in another, wherever it begins, at the worst channel."""
    middles = known[:, 2000:-2000]
    return min(
        float(np.correlate(made, middle).max() / (middle**2).sum())
        for made, middle in zip(audio, middles, strict=True)
    )


STEP = {"s16": 2**-15, "s24": 2**-23, "f32": 0}


@pytest.mark.parametrize("output", LOSSLESS, ids=str)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_files_hold_the_samples(output: Output, channels: int):
    samples = tone(channels=channels)
    file = encode_samples(samples, RATE, output, TAGS)
    audio, rate = soundfile.read(io.BytesIO(file), always_2d=True)
    assert rate == RATE
    assert audio.T.shape == samples.shape
    assert np.abs(audio.T - samples).max() <= STEP[output.sample_format] / 2
    subtype = soundfile.info(io.BytesIO(file)).subtype
    assert subtype == {"s16": "PCM_16", "s24": "PCM_24", "f32": "FLOAT"}[output.sample_format]


@pytest.mark.parametrize("form", ["s16", "s24", "f32"])
def test_raw_samples_are_a_wavs_without_its_head(form: str):
    samples = tone(channels=2)
    raw = encode_samples(samples, RATE, Output("pcm", form), TAGS)
    wav = encode_samples(samples, RATE, Output("wav", form), None)
    assert wav.endswith(raw)
    assert len(raw) == samples.size * {"s16": 2, "s24": 3, "f32": 4}[form]


@pytest.mark.parametrize("output", LOSSY, ids=str)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_files_sound_alike(output: Output, channels: int):
    samples = tone(channels=channels)
    file = encode_samples(samples, RATE, output, TAGS)
    audio, rate = read(file)
    assert rate == (48000 if output.format == "opus" else RATE)
    known = tone(channels=channels, rate=rate)
    size = min(audio.shape[1], known.shape[1])
    assert abs(audio.shape[1] - known.shape[1]) < 0.2 * rate
    assert likeness(audio[:, :size], known[:, :size]) > 0.9


@pytest.mark.parametrize("output", [*LOSSLESS, Output("pcm"), *LOSSY], ids=str)
def test_a_stream_is_the_whole_file_as_it_grows(output: Output):
    samples = tone()
    parts = streamed(samples, output)
    whole = encode_samples(samples, RATE, output, TAGS)
    joined = b"".join(parts)
    if output.format in ("wav", "pcm"):
        assert joined == whole
    else:
        # An MP3 that is streamed cannot say at its start how much its encoder put before it.
        assert likeness(read(joined)[0], read(whole)[0]) > 0.999
    assert sum(map(len, parts[:-1])) > 0.4 * len(joined), "it grows before its end"


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("streaming", [False, True])
def test_another_rate_keeps_the_length_and_the_sound(rate: int, streaming: bool):
    samples = tone(channels=2)[:, :-7]
    output = Output("wav", "f32", sample_rate=rate)
    file = (
        b"".join(streamed(samples, output))
        if streaming
        else encode_samples(samples, RATE, output, None)
    )
    audio, given = read(file)
    assert given == rate
    assert audio.shape[1] == -(-samples.shape[1] * rate // RATE)
    expected = tone(channels=2, rate=rate)[:, : audio.shape[1]]
    assert np.abs(audio - expected).max() < 0.01


def test_full_scale_is_clipped_and_never_wraps():
    samples = np.array([[1.5, -1.5, 1.0, -1.0]], np.float32)
    for form in ("s16", "s24"):
        audio, _ = soundfile.read(
            io.BytesIO(encode_samples(samples, RATE, Output("wav", form), None))
        )
        assert np.sign(audio).tolist() == [1, -1, 1, -1]
        assert np.abs(audio).min() > 0.999


def test_what_is_shorter_than_it_said_is_filled_up():
    encoder = Encoder(Output("wav"), RATE, 1, 1000, None, streamed=True)
    file = encoder.add_samples(tone()[:, :400]) + encoder.finish()
    audio, _ = soundfile.read(io.BytesIO(file))
    assert len(audio) == 1000
    assert not audio[400:].any()


def told(file: bytes) -> dict[str, str]:
    """The tags that FFmpeg reads, names in lower case."""
    with av.open(io.BytesIO(file)) as container:
        metadata = container.metadata | container.streams.audio[0].metadata
    return {name.lower(): value for name, value in metadata.items()}


@pytest.mark.parametrize("output", [LOSSLESS[0], LOSSLESS[3], *LOSSY], ids=str)
@pytest.mark.parametrize("streaming", [False, True])
def test_files_tell_how_they_were_made(output: Output, streaming: bool):
    file = (
        b"".join(streamed(tone(), output))
        if streaming
        else encode_samples(tone(), RATE, output, TAGS)
    )
    found = told(file)
    made = json.loads(found["comment"])
    assert made == {
        "digital_source_type": AI_GENERATED, "prompt": TAGS.prompt,
        "model": "music", "seed": 7, "top_k": 250,
    }  # fmt: skip
    assert found["title"] == TAGS.prompt
    if output.format == "wav":
        assert AI_GENERATED.encode() in chunks(file)[b"_PMX"]
        assert b"&lt;rain&gt; &amp; thunder" in chunks(file)[b"_PMX"]
    elif output.format != "ogg":
        assert found["digitalsourcetype"] == AI_GENERATED


def test_a_prompt_that_is_not_to_be_told_is_nowhere():
    for name in FORMATS:
        file = encode_samples(tone(), RATE, Output(name), replace(TAGS, prompt=None))
        assert b"thunder" not in file


def chunks(file: bytes) -> dict[bytes, bytes]:
    assert struct.unpack("<I", file[4:8])[0] == len(file) - 8
    found, at = {}, 12
    while at < len(file):
        (size,) = struct.unpack("<I", file[at + 4 : at + 8])
        found[file[at : at + 4]] = file[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    assert at == len(file)
    return found


def test_odd_sizes_are_padded():
    file = encode_samples(tone()[:, :3], RATE, Output("wav", "s24"), TAGS)
    assert len(chunks(file)[b"data"]) == 9
    assert b"".join(streamed(tone()[:, :3], Output("wav", "s24"))) == file
    assert len(encode_samples(tone()[:, :3], RATE, Output("pcm", "s24"), None)) == 9


def test_a_long_vorbis_file_leaves_its_thread_alive():
    """libvorbis keeps on its stack what it is given at once: 3 million samples were a crash."""
    silence = np.zeros((1, 3_000_000), np.float32)
    file = encode_in_a_thread(silence, Output("ogg"))
    assert soundfile.info(io.BytesIO(file)).frames == 3_000_000


def encode_in_a_thread(samples: np.ndarray, output: Output) -> bytes:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(encode_samples, samples, RATE, output, TAGS).result()


@pytest.mark.parametrize("name", FORMATS)
def test_any_prompt_can_be_told(name: str):
    prompt = "\0rain\x07 \ufffe\uffff\ttab & \U0001f3b9"
    file = encode_samples(tone(), RATE, Output(name), replace(TAGS, prompt=prompt))
    if name == "wav":
        ElementTree.fromstring(chunks(file)[b"_PMX"])
    if name != "pcm":
        assert json.loads(told(file)["comment"])["prompt"] == " rain    \ttab & \U0001f3b9"


@pytest.mark.parametrize("name", ["wav", "pcm", "flac", "mp3", "aac", "opus"])
def test_the_same_samples_give_the_same_bytes(name: str):
    first, second = (encode_samples(tone(), RATE, Output(name), TAGS) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("output", "param", "reason"),
    [
        (Output("mp3", "s24"), "sample_format", "mp3 supports s16, not s24"),
        (Output("flac", "f32"), "sample_format", "flac supports s16, s24, not f32"),
        (Output("opus", sample_rate=44100), "sample_rate", "opus supports 48000, not 44100"),
        (Output("wav", sample_rate=7999), "sample_rate", "from 8000 to 96000"),
        (Output("mp3", bitrate=500), "bitrate", "from 32 to 320 kbit/s, not 500"),
        (Output("wav", bitrate=128), "bitrate", "no bit rate"),
    ],
)
def test_what_a_format_has_not_is_refused(output: Output, param: str, reason: str):
    with pytest.raises(InvalidRequest, match=reason) as raised:
        output.check_format()
    assert raised.value.param == param


def test_a_rate_that_a_format_has_not_becomes_the_next_above():
    assert Output("opus").rate_for(32000) == 48000
    assert Output("mp3").rate_for(32000) == 32000
    assert Output("mp3").rate_for(13000) == 16000
    assert Output("aac").rate_for(96000) == 48000
    assert Output("wav").rate_for(16000) == 16000
