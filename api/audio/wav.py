"""RIFF headers, of files whose length is known before their samples are."""

import struct

from api.audio.output import SampleFormat
from api.audio.tags import SOFTWARE, Tags

BYTES: dict[SampleFormat, int] = {"s16": 2, "s24": 3, "f32": 4}
PCM, FLOAT = 1, 3


def header(form: SampleFormat, rate: int, channels: int, samples: int, tags: Tags | None) -> bytes:
    """Return all that goes before a WAV file's samples, with its tags as INFO and as XMP."""
    block = BYTES[form] * channels
    kind = FLOAT if form == "f32" else PCM
    chunks = _chunk(
        b"fmt ",
        struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, 8 * BYTES[form]),
    )
    if kind == FLOAT:
        chunks += _chunk(b"fact", struct.pack("<I", samples))
    if tags:
        info = _chunk(b"ISFT", _text(SOFTWARE)) + _chunk(b"ICMT", _text(tags.comment))
        if tags.title is not None:
            info += _chunk(b"INAM", _text(tags.title))
        chunks += _chunk(b"LIST", b"INFO" + info) + _chunk(b"_PMX", tags.xmp())
    size = samples * block
    # RIFF pads a chunk to whole words; `PcmSink` sends the byte.
    whole = 4 + len(chunks) + 8 + size + size % 2
    return b"RIFF" + struct.pack("<I", whole) + b"WAVE" + chunks + b"data" + struct.pack("<I", size)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
