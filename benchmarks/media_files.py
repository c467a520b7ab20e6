"""Makes audio files of every accepted format in memory."""

import io
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24000


def make_tone(seconds: float = 1.0, channels: int = 1) -> NDArray[np.float64]:
    """Make sines [channels, samples], at 440 Hz in the first channel, 880 Hz in the second."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitches = [440 * (1 + channel) for channel in range(channels)]
    return np.stack([0.5 * np.sin(2 * np.pi * pitch * time) for pitch in pitches])


def encode_with_soundfile(
    kind: str, subtype: str | None = None, audio: NDArray[np.float64] | None = None
) -> bytes:
    """Encode a tone, or other audio [channels, samples], with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, (make_tone() if audio is None else audio).T, RATE, subtype, format=kind)
    return file.getvalue()


def encode_with_ffmpeg(
    container: str,
    codec: str,
    seconds: float = 1.0,
    video: str | None = None,
    audio: NDArray[np.float64] | None = None,
    options: dict[str, str] | None = None,
    coding: dict[str, str] | None = None,
) -> bytes:
    """Encode a tone, or other audio [1, samples], with FFmpeg, and options of container and codec.

    `video` names a codec for black pictures beside it.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as output:
        moving: Any = output.add_stream(video, rate=5) if video else None
        if moving:
            moving.width, moving.height, moving.pix_fmt = 64, 64, "yuv420p"
        stream: Any = output.add_stream(codec, rate=RATE, layout="mono", options=coding or {})
        frame = av.AudioFrame.from_ndarray(
            (make_tone(seconds) if audio is None else audio).astype(np.float32),
            format="fltp",
            layout="mono",
        )
        frame.sample_rate = RATE
        resampler = av.AudioResampler(
            stream.format, "mono", RATE, frame_size=stream.frame_size or None
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
        if moving:
            for _ in range(5):
                output.mux(moving.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(moving.encode(None))
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encode_with_soundfile("WAV", "PCM_16"),
    "wav, 24 bits": lambda: encode_with_soundfile("WAV", "PCM_24"),
    "wav, floats": lambda: encode_with_soundfile("WAV", "FLOAT"),
    "flac": lambda: encode_with_soundfile("FLAC"),
    "aiff": lambda: encode_with_soundfile("AIFF"),
    "mp3": lambda: encode_with_ffmpeg("mp3", "libmp3lame"),
    "ogg": lambda: encode_with_soundfile("OGG", "VORBIS"),
    "opus": lambda: encode_with_ffmpeg("ogg", "libopus"),
    "m4a": lambda: encode_with_ffmpeg("ipod", "aac"),
}
