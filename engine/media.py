"""Decodes uploaded audio files with FFmpeg's libraries (PyAV); uploads are not trusted.

Only audio formats are tried, never playlists or other files that name further files. A cover
picture is ignored and a video is refused. The decoded length is checked while decoding, so that a
small file cannot expand without bound.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from engine.errors import InvalidAudio
from engine.params import MediaLimits, UploadInfo, Waveform, describe_bad_samples
from engine.resampling import check_channels, convert_channels, resample_parts

FORMATS = "wav,w64,flac,mp3,ogg,mov,aiff,aac"
"""FFmpeg's names of the formats; `mov` includes m4a and mp4, `ogg` includes Opus."""
FORMAT_NAMES = "wav, flac, mp3, ogg, opus, m4a or aiff"
"""The formats as error messages list them."""
RATES = (1000, 192000)
"""Lowest and highest sample rate in Hz."""
UNKNOWN_BYTES = 0x7FFFFF00
"""Sizes from here on mean "unknown": programs that write to a pipe put them into the header."""
PADDING_S = 0.1
"""How much longer than the limit audio may be, since coders fill their last packet."""
GUESSED = ("mp3", "aac")
"""FFmpeg's names of formats that may not store their length, which FFmpeg guesses then."""
PART_S = 1.0
"""Seconds of decoded samples that are converted at once."""
WRAPPED = 2**32 - 2**16
"""Durations from here on are negative, and were stored in 32 bits: FFmpeg gives the last packet of
a Vorbis file such a one, if the file ends within the packet before."""
CUT_SHORT = 0.95
"""A file with less than this share of the length in its header is treated as truncated."""


def probe(data: bytes, limits: MediaLimits) -> UploadInfo:
    """Return the length, rate and channels of a file's first audio stream, without decoding it.

    The length is that of all packets, since some containers only guess it. Raises InvalidAudio.
    """
    with _open_file(data, limits) as container:
        stream = _select_stream(container, limits)
        durations = [packet.duration or 0 for packet in container.demux(stream)]
        ticks = sum(ticks - 2**32 if ticks >= WRAPPED else ticks for ticks in durations)
        seconds = float(ticks * stream.time_base) if stream.time_base else 0.0
        info = UploadInfo(seconds, stream.rate, stream.channels)
    if info.seconds > limits.max_seconds + PADDING_S:
        raise InvalidAudio(_too_long_message(limits))
    return info


def decode(
    data: bytes, limits: MediaLimits, sample_rate: int | None = None, channels: int | None = None
) -> Waveform:
    """Decode the first audio stream of a file, full scale ±1; by default at its rate and channels.

    Rate and channels are converted as AudioCraft's `convert_audio` does. Raises InvalidAudio.
    """
    with _open_file(data, limits) as container:
        stream = _select_stream(container, limits)
        sample_rate, channels = sample_rate or stream.rate, channels or stream.channels
        check_channels(stream.channels, channels)
        parts = _decode_parts(container, stream, limits)
        resampled = resample_parts(parts, stream.rate, sample_rate)
        made = [convert_channels(part, channels) for part in resampled]
    return Waveform.pack(np.concatenate(made, axis=1), sample_rate)


@contextmanager
def _open_file(data: bytes, limits: MediaLimits) -> Iterator[InputContainer]:
    """Open a file; every error of reading it becomes InvalidAudio."""
    if len(data) > limits.max_bytes:
        raise InvalidAudio(f"the file has {len(data)} bytes; allowed: {limits.max_bytes}")
    if not data:
        raise InvalidAudio(f"the file is empty; send {FORMAT_NAMES}")
    if len(data) < CUT_SHORT * _stated_bytes(data):
        raise InvalidAudio("the file is cut short: it states more bytes than there are")
    try:
        with av.open(io.BytesIO(data), "r", options={"format_whitelist": FORMATS}) as container:
            yield container
    except (FFmpegError, ValueError, OverflowError) as error:
        # PyAV raises its own errors, and Python's for impossible numbers in a file.
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidAudio(f"the file cannot be read as {FORMAT_NAMES}: {reason}") from error


def _select_stream(container: InputContainer, limits: MediaLimits) -> AudioStream:
    """Return the first audio stream, after checking all that the headers state.

    Raises InvalidAudio.
    """
    pictures = av.stream.Disposition.attached_pic
    if any(not stream.disposition & pictures for stream in container.streams.video):
        raise InvalidAudio(f"the file is a video; send {FORMAT_NAMES}")
    if not container.streams.audio:
        raise InvalidAudio(f"the file has no audio; send {FORMAT_NAMES}")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise InvalidAudio(f"the file's audio is of an unknown kind; send {FORMAT_NAMES}")
    least, most = RATES
    if not least <= stream.rate <= most:
        raise InvalidAudio(f"the file has {stream.rate} Hz; allowed: {least} to {most}")
    if not 1 <= stream.channels <= limits.max_channels:
        most = limits.max_channels
        raise InvalidAudio(f"the file has {stream.channels} channels; allowed: 1 to {most}")
    if _stated_seconds(container, stream) > limits.max_seconds + PADDING_S:
        raise InvalidAudio(_too_long_message(limits))
    stream.codec_context.thread_type = "NONE"
    return stream


def _decode_parts(
    container: InputContainer, stream: AudioStream, limits: MediaLimits
) -> Iterator[NDArray[np.float32]]:
    """Yield parts of about `PART_S` seconds, float32 [channels, samples].

    Raises InvalidAudio if the file is too long, is cut short, or has samples that are no numbers.
    """
    most = int((limits.max_seconds + PADDING_S) * stream.rate)
    frames: list[NDArray[np.float32]] = []
    count = waiting = 0
    for frame in _decode_frames(container, stream):
        count, waiting = count + frame.shape[1], waiting + frame.shape[1]
        if count > most:
            raise InvalidAudio(_too_long_message(limits))
        frames.append(frame)
        if waiting >= PART_S * stream.rate:
            yield _join_frames(frames)
            frames, waiting = [], 0
    if not count:
        raise InvalidAudio("the file has no samples")
    stated = _stated_seconds(container, stream)
    if count / stream.rate < CUT_SHORT * stated - 0.1:
        found = f"it states {stated:.1f} s, and only {count / stream.rate:.1f} s are there"
        raise InvalidAudio(f"the file is cut short: {found}")
    if frames:
        yield _join_frames(frames)


def _join_frames(frames: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    joined = np.concatenate(frames, axis=1)
    if bad := describe_bad_samples(joined):
        raise InvalidAudio(f"the file has {bad}")
    return joined


def _decode_frames(container: InputContainer, stream: AudioStream) -> Iterator[NDArray[np.float32]]:
    """Yield decoded frames as float32 [channels, samples], all at the stream's rate."""
    resampler = av.AudioResampler("fltp", stream.layout, stream.rate)
    for frame in container.decode(stream):
        yield from (part.to_ndarray().astype(np.float32) for part in resampler.resample(frame))
    yield from (part.to_ndarray().astype(np.float32) for part in resampler.resample(None))


def _stated_seconds(container: InputContainer, stream: AudioStream) -> float:
    """Return the length that the container stores; 0 if it stores none, or FFmpeg guesses it."""
    guessed = container.format.name in GUESSED
    if guessed or stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def _stated_bytes(data: bytes) -> int:
    """Return the size that a WAV or AIFF header states; 0 if it states none or an unknown one."""
    order: Literal["little", "big"] = "little" if data[:4] == b"RIFF" else "big"
    stated = int.from_bytes(data[4:8], order) if data[:4] in (b"RIFF", b"FORM") else 0
    return stated if stated < UNKNOWN_BYTES else 0


def _too_long_message(limits: MediaLimits) -> str:
    return f"the audio is longer than {limits.max_seconds:g} s; send a shorter part"
