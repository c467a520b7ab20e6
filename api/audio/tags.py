"""Builds the tags of files in standard terms, and the header of WAV files with tags."""

import json
import re
import struct
from dataclasses import dataclass
from xml.sax.saxutils import escape

from api.audio.output import SampleFormat

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source types: media made by a trained model, and composites with such media."""
SOFTWARE, VERSION = "audiocraft-serve", "0.1.0"
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<ext:DigitalSourceType>{source}</ext:DigitalSourceType><xmp:CreatorTool>{software}</xmp:CreatorTool>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt>
</dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class Tags:
    """The tags of a file: how its audio was made."""

    model: str
    seed: int
    parameters: dict[str, object]
    prompt: str | None
    """The prompt, or None if the file must not include it."""
    source: str = AI_GENERATED
    """One of IPTC's digital source types."""

    @property
    def title(self) -> str | None:
        """The prompt without the characters that XML cannot hold, or None."""
        return None if self.prompt is None else NOT_XML.sub(" ", self.prompt)

    @property
    def given(self) -> dict[str, object]:
        """The input of the model: prompt, seed and parameters."""
        prompt = {} if self.title is None else {"prompt": self.title}
        return prompt | {"seed": self.seed} | self.parameters

    @property
    def comment(self) -> str:
        """All tags as JSON."""
        origin = {"digital_source_type": self.source, "model": self.model}
        return json.dumps(origin | self.given, ensure_ascii=False)

    def build_fields(self) -> dict[str, str]:
        """Build the tags for containers with free names: Vorbis comments and ID3's TXXX."""
        title = {} if self.title is None else {"title": self.title}
        return title | {
            "comment": self.comment,
            "software": SOFTWARE,
            "DIGITALSOURCETYPE": self.source,
        }

    def build_xmp(self) -> bytes:
        """Build the XMP packet (ISO 16684-1)."""
        packet = XMP.format(source=self.source, software=SOFTWARE, description=escape(self.comment))
        return packet.encode()


BYTES: dict[SampleFormat, int] = {"s16": 2, "s24": 3, "f32": 4}
PCM, FLOAT = 1, 3


def build_wav_header(
    form: SampleFormat, rate: int, channels: int, samples: int, tags: Tags | None
) -> bytes:
    """Build the header before the samples of a WAV file, with tags as INFO and as XMP."""
    block = BYTES[form] * channels
    kind = FLOAT if form == "f32" else PCM
    chunks = _build_chunk(
        b"fmt ",
        struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, 8 * BYTES[form]),
    )
    if kind == FLOAT:
        chunks += _build_chunk(b"fact", struct.pack("<I", samples))
    if tags:
        info = _build_chunk(b"ISFT", _encode_text(SOFTWARE))
        info += _build_chunk(b"ICMT", _encode_text(tags.comment))
        if tags.title is not None:
            info += _build_chunk(b"INAM", _encode_text(tags.title))
        chunks += _build_chunk(b"LIST", b"INFO" + info) + _build_chunk(b"_PMX", tags.build_xmp())
    size = samples * block
    # RIFF pads a chunk to an even number of bytes; `PcmSink` sends the padding byte.
    whole = 4 + len(chunks) + 8 + size + size % 2
    return b"RIFF" + struct.pack("<I", whole) + b"WAVE" + chunks + b"data" + struct.pack("<I", size)


def _encode_text(value: str) -> bytes:
    return value.encode() + b"\0"


def _build_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
