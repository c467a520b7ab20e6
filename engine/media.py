"""Uploaded audio files to samples, by FFmpeg's libraries (PyAV). What comes in is not trusted.

Only audio formats are tried, no playlists or other files that name further files; a picture inside
is let be, moving pictures are refused. What a small file may unfold to is bounded while it unfolds.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from julius.resample import resample_frac
from numpy.typing import NDArray

from engine.errors import InvalidAudio
from engine.params import MediaLimits, UploadInfo, Waveform

FORMATS = "wav,w64,flac,mp3,ogg,mov,aiff,aac"
"""FFmpeg's names; `mov` is also m4a and mp4, `ogg` also Opus."""
SPOKEN = "wav, flac, mp3, ogg, opus, m4a or aiff"
RATES = (1000, 192000)
UNKNOWN_BYTES = 0x7FFFFF00
"""Programs that write to a pipe state this many or more."""
PADDING_S = 0.1
"""How much longer than its audio a stream of packets may be."""
CUT_SHORT = 0.95
"""A file that gives less than this share of the length that it states is damaged."""


def probe(data: bytes, limits: MediaLimits) -> UploadInfo:
    """Return the length, rate and channels of a file's first audio stream, without decoding it.

    The length is that of all packets, since some containers only guess it. Raises InvalidAudio.
    """
    with _open_file(data, limits) as container:
        stream = _audio_stream(container, limits)
        ticks = sum(packet.duration or 0 for packet in container.demux(stream))
        seconds = float(ticks * stream.time_base) if stream.time_base else 0.0
        info = UploadInfo(seconds, stream.rate, stream.channels)
    if info.seconds > limits.max_seconds + PADDING_S:
        raise InvalidAudio(_too_long(limits))
    return info


def decode(data: bytes, limits: MediaLimits) -> Waveform:
    """Return a file's samples at its own rate, full scale ±1. Raises InvalidAudio.

    Only the first audio stream is decoded.
    """
    with _open_file(data, limits) as container:
        stream = _audio_stream(container, limits)
        audio, rate = _samples(container, stream, limits), stream.rate
    if not np.isfinite(audio).all():
        raise InvalidAudio("the file has samples that are not numbers")
    return Waveform.pack(audio, rate)


@contextmanager
def _open_file(data: bytes, limits: MediaLimits) -> Iterator[InputContainer]:
    """Open a file; every error of reading it becomes InvalidAudio."""
    if len(data) > limits.max_bytes:
        raise InvalidAudio(f"the file has {len(data)} bytes; allowed: {limits.max_bytes}")
    if not data:
        raise InvalidAudio(f"the file is empty; send {SPOKEN}")
    if len(data) < CUT_SHORT * _stated_bytes(data):
        raise InvalidAudio("the file is cut short: it states more bytes than there are")
    try:
        with av.open(io.BytesIO(data), "r", options={"format_whitelist": FORMATS}) as container:
            yield container
    except (FFmpegError, ValueError, OverflowError) as error:
        # PyAV raises its own errors, and Python's where a number in a file makes no sense.
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidAudio(f"the file cannot be read as {SPOKEN}: {reason}") from error


def _audio_stream(container: InputContainer, limits: MediaLimits) -> AudioStream:
    """Return the stream to decode, having looked at all that is known before decoding."""
    pictures = av.stream.Disposition.attached_pic
    if any(not stream.disposition & pictures for stream in container.streams.video):
        raise InvalidAudio(f"the file is a video; send {SPOKEN}")
    if not container.streams.audio:
        raise InvalidAudio(f"the file has no audio; send {SPOKEN}")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise InvalidAudio(f"the file's audio is of an unknown kind; send {SPOKEN}")
    least, most = RATES
    if not least <= stream.rate <= most:
        raise InvalidAudio(f"the file has {stream.rate} Hz; allowed: {least} to {most}")
    if not 1 <= stream.channels <= limits.max_channels:
        most = limits.max_channels
        raise InvalidAudio(f"the file has {stream.channels} channels; allowed: 1 to {most}")
    if (stated := _stated_seconds(stream)) and stated > limits.max_seconds:
        raise InvalidAudio(_too_long(limits))
    stream.codec_context.thread_type = "NONE"
    return stream


def _samples(
    container: InputContainer, stream: AudioStream, limits: MediaLimits
) -> NDArray[np.float32]:
    """Decode all of a stream, float32 [channels, samples]."""
    most = int(limits.max_seconds * stream.rate)
    parts: list[NDArray[np.float32]] = []
    count = 0
    for part in _frames(container, stream):
        count += part.shape[1]
        if count > most:
            raise InvalidAudio(_too_long(limits))
        parts.append(part)
    if not count:
        raise InvalidAudio("the file has no samples")
    stated = _stated_seconds(stream)
    if stated and count / stream.rate < CUT_SHORT * stated - 0.1:
        told = f"it states {stated:.1f} s, and only {count / stream.rate:.1f} s are there"
        raise InvalidAudio(f"the file is cut short: {told}")
    return np.concatenate(parts, axis=1)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[NDArray[np.float32]]:
    """Yield decoded frames as planar floats; a change of rate inside a file is evened out."""
    even = av.AudioResampler("fltp", stream.layout, stream.rate)
    for frame in container.decode(stream):
        yield from (part.to_ndarray().astype(np.float32) for part in even.resample(frame))
    yield from (part.to_ndarray().astype(np.float32) for part in even.resample(None))


def _stated_seconds(stream: AudioStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _stated_bytes(data: bytes) -> int:
    """Return the size that a WAV or AIFF states; 0 where none is, or it was written to a pipe."""
    order: Literal["little", "big"] = "little" if data[:4] == b"RIFF" else "big"
    stated = int.from_bytes(data[4:8], order) if data[:4] in (b"RIFF", b"FORM") else 0
    return stated if stated < UNKNOWN_BYTES else 0


def _too_long(limits: MediaLimits) -> str:
    return f"the audio is longer than {limits.max_seconds:g} s; send a shorter part"


def convert(audio: Waveform, sample_rate: int, channels: int) -> Waveform:
    """Change rate and channels as AudioCraft's `convert_audio` does. Raises InvalidAudio.

    To one channel is the mean; one becomes many; many become the first of them.
    """
    samples = torch.tensor(audio.array())
    if audio.sample_rate != sample_rate:
        samples = resample_frac(samples, audio.sample_rate, sample_rate)
    if channels == 1:
        samples = samples.mean(0, keepdim=True)
    elif audio.channels == 1:
        samples = samples.expand(channels, -1)
    elif audio.channels < channels:
        raise InvalidAudio(f"the file has {audio.channels} channels; send 1, {channels} or more")
    return Waveform.pack(samples[:channels].numpy(), sample_rate)
