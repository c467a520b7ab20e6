"""Encodes samples as an audio file, in parts or all at once."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self

import av
import numpy as np
import soundfile
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from api.audio.output import Output, SampleFormat
from api.audio.tags import SOFTWARE, Tags, build_wav_header

Samples = NDArray[np.float32]
LAYOUTS = {1: "mono", 2: "stereo"}
BLOCK = 2**15
CODECS = {
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
}
"""FFmpeg's names of the container and the codec of each format."""
FORMS: dict[tuple[str, SampleFormat], str] = {
    ("flac", "s16"): "s16",
    ("flac", "s24"): "s32",
    ("mp3", "f32"): "fltp",
    ("opus", "f32"): "flt",
    ("aac", "f32"): "fltp",
}
"""FFmpeg's names of the sample formats that each codec accepts."""


class Sink(Protocol):
    """Encodes samples [channels, samples] of one rate as bytes."""

    def write_samples(self, samples: Samples) -> bytes:
        """Encode samples; return the bytes that are ready."""

    def close_file(self) -> bytes:
        """Finish the file; return the remaining bytes."""


class Encoder:
    """Encodes one file. A streamed file states its length only in WAV.

    The encoder expects `samples` samples per channel at `rate` Hz. It adds silence if fewer arrive
    and ignores any further samples.
    """

    def __init__(
        self,
        output: Output,
        rate: int,
        channels: int,
        samples: int,
        tags: Tags | None,
        *,
        streamed: bool,
    ) -> None:
        self.rate = output.rate_for(rate)
        self._channels = channels
        self._left = -(-samples * self.rate // rate)
        self._resampler = None
        if rate != self.rate:
            self._resampler = soxr.ResampleStream(rate, self.rate, channels, "float32")
        if output.format in ("wav", "pcm"):
            head = None
            if output.format == "wav":
                head = build_wav_header(output.sample_format, self.rate, channels, self._left, tags)
            self._sink: Sink = PcmSink(output.sample_format, head)
        elif output.format == "ogg":
            self._sink = VorbisSink(self.rate, channels, tags)
        else:
            self._sink = AvSink(output, self.rate, channels, tags, seekable=not streamed)

    def add_samples(self, samples: Samples) -> bytes:
        """Encode samples; return the bytes that are ready."""
        if not samples.shape[1]:
            return b""
        return self._write_samples(self._resample_part(samples))

    def finish(self) -> bytes:
        """Finish the file; return the remaining bytes."""
        none = np.zeros((self._channels, 0), np.float32)
        last = self._write_samples(self._resample_part(none, last=True))
        if self._left:
            last += self._write_samples(np.zeros((self._channels, self._left), np.float32))
        return last + self._sink.close_file()

    def _resample_part(self, samples: Samples, *, last: bool = False) -> Samples:
        if self._resampler is None:
            return samples
        resampled: Samples = self._resampler.resample_chunk(np.ascontiguousarray(samples.T), last).T
        return resampled

    def _write_samples(self, samples: Samples) -> bytes:
        samples = samples[:, : self._left]
        self._left -= samples.shape[1]
        return self._sink.write_samples(samples) if samples.shape[1] else b""


@dataclass(frozen=True)
class Audio:
    """A whole clip of float samples [channels, samples], in consecutive blocks of any length."""

    blocks: Iterable[Samples]
    rate: int
    """Sample rate in Hz."""
    channels: int
    samples: int
    """The samples per channel of all blocks."""

    @classmethod
    def of_one_block(cls, samples: Samples, rate: int) -> Self:
        """Return a clip that is held whole."""
        return cls((samples,), rate, *samples.shape)


def encode_parts(audio: Audio, output: Output, tags: Tags | None) -> Iterator[bytes]:
    """Yield the parts of a whole file; integers are clipped at ±1."""
    encoder = Encoder(output, audio.rate, audio.channels, audio.samples, tags, streamed=False)
    for block in audio.blocks:
        for start in range(0, block.shape[1], BLOCK):
            if part := encoder.add_samples(block[:, start : start + BLOCK]):
                yield part
    yield encoder.finish()


def encode_samples(samples: Samples, rate: int, output: Output, tags: Tags | None) -> bytes:
    """Encode float samples [channels, samples] as a whole file."""
    return b"".join(encode_parts(Audio.of_one_block(samples, rate), output, tags))


def quantize_samples(samples: Samples, form: SampleFormat) -> NDArray[np.generic]:
    """Convert floats to integers of 16 or 24 bits (in int32), clipped at full scale; keep f32."""
    if form == "f32":
        return samples.astype("<f4")
    # As in FFmpeg, libsndfile and AudioCraft, 1.0 is one step above the highest integer.
    scale, kind = (2**15, "<i2") if form == "s16" else (2**23, "<i4")
    scaled = np.round(samples.astype(np.float64) * scale)
    return scaled.clip(-scale, scale - 1).astype(kind)


def build_frame(samples: NDArray[np.generic], form: str, rate: int) -> AudioFrame:
    """Build a frame of FFmpeg from samples [channels, samples]."""
    planar = form.endswith("p")
    array = samples if planar else samples.T.reshape(1, -1)
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(array), form, LAYOUTS[samples.shape[0]])
    frame.sample_rate = rate
    return frame


class PcmSink:
    """Writes uncompressed samples, little-endian and interleaved, after an optional header."""

    def __init__(self, form: SampleFormat, head: bytes | None) -> None:
        self._form, self._head = form, head or b""
        self._pads, self._odd = head is not None, False

    def write_samples(self, samples: Samples) -> bytes:
        """Return the bytes of samples, after the header in the first call."""
        data = np.ascontiguousarray(quantize_samples(samples, self._form).T)
        raw = data.tobytes()
        if self._form == "s24":
            raw = data.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        self._odd ^= len(raw) % 2 == 1
        head, self._head = self._head, b""
        return head + raw

    def close_file(self) -> bytes:
        """Return the header if it was not sent, and the padding byte of a WAV file."""
        return self._head + b"\0" * (self._pads and self._odd)


class AvSink:
    """Writes a compressed file with the libraries of FFmpeg."""

    def __init__(
        self, output: Output, rate: int, channels: int, tags: Tags | None, *, seekable: bool
    ) -> None:
        container, codec = CODECS[output.format]
        self._file: io.BytesIO | Pipe = io.BytesIO() if seekable else Pipe()
        # Short pages (in µs) let a stream begin early: by default a page holds a second of audio.
        options = {"page_duration": "100000"} if container == "ogg" else {}
        options |= {"write_id3v2": "1"} if container == "adts" else {}
        # Without this flag every Ogg stream gets a random serial number.
        options |= {"fflags": "+bitexact"}
        self._container = av.open(self._file, "w", format=container, options=options)
        self._container.metadata.update(tags.build_fields() if tags else {})
        stream = self._container.add_stream(codec, rate=rate, layout=LAYOUTS[channels])
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.time_base = Fraction(1, rate)
        self._rate, self._at = rate, 0
        self._form: SampleFormat = "f32" if output.kind.bitrate else output.sample_format
        self._stream.format = FORMS[output.format, self._form]
        if output.kind.bitrate:
            self._stream.bit_rate = 1000 * (output.bitrate or output.kind.bitrate)

    def write_samples(self, samples: Samples) -> bytes:
        """Encode samples; return the bytes that are ready."""
        values = quantize_samples(samples.clip(-1, 1), self._form)
        if self._form == "s24":
            values = np.left_shift(values, 8)  # FFmpeg uses the upper 24 of 32 bits
        frame = build_frame(values, self._stream.format.name, self._rate)
        frame.pts = self._at
        self._at += samples.shape[1]
        self._container.mux(self._stream.encode(frame))
        return self._take_bytes()

    def close_file(self) -> bytes:
        """Finish the file; return the remaining bytes, or the whole file if it is seekable."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue() if isinstance(self._file, io.BytesIO) else self._take_bytes()

    def _take_bytes(self) -> bytes:
        return self._file.take_bytes() if isinstance(self._file, Pipe) else b""


class VorbisSink:
    """Writes Ogg Vorbis with libsndfile, because FFmpeg's own encoder is experimental."""

    def __init__(self, rate: int, channels: int, tags: Tags | None) -> None:
        self._pipe = Pipe()
        self._file = soundfile.SoundFile(
            self._pipe, "w", rate, channels, format="OGG", subtype="VORBIS"
        )
        if tags:
            self._file.comment, self._file.software = tags.comment, SOFTWARE
            if tags.title is not None:
                self._file.title = tags.title

    def write_samples(self, samples: Samples) -> bytes:
        """Encode samples; return the bytes that are ready."""
        # libvorbis copies each block onto its stack, so blocks must be small.
        for start in range(0, samples.shape[1], BLOCK):
            self._file.write(samples[:, start : start + BLOCK].T)
        return self._pipe.take_bytes()

    def close_file(self) -> bytes:
        """Finish the file; return the remaining bytes."""
        self._file.close()
        return self._pipe.take_bytes()


class Pipe:
    """A file object in memory that can only be appended to; `take_bytes` empties it."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._written = 0

    def write(self, data: bytes) -> int:
        """Append bytes; return their number."""
        self._waiting += data
        self._written += len(data)
        return len(data)

    def seekable(self) -> bool:
        """Return False, because bytes that were taken are gone."""
        return False

    def seek(self, position: int, whence: int = 0) -> int:
        """Return the end of the file without moving; libsndfile asks only for the end."""
        return self._written

    def tell(self) -> int:
        """Return the number of bytes that were written."""
        return self._written

    def take_bytes(self) -> bytes:
        """Return the bytes that were written since the last call."""
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken
