"""What a file says of itself: tags in standard terms, and the header of WAV files that has them."""

import json
import re
import struct
from dataclasses import dataclass
from xml.sax.saxutils import escape

from api.audio.output import SampleFormat

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source types: of media that a trained model made, and joined to others."""
SOFTWARE, VERSION = "audiocraft-serve", "0.1.0"
UNTOLD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
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
    """How a clip was made."""

    model: str
    seed: int
    parameters: dict[str, object]
    prompt: str | None
    """None: not to be told."""
    source: str = AI_GENERATED
    """Of IPTC's digital source types."""

    @property
    def title(self) -> str | None:
        """The prompt, without characters that XML and file formats cannot hold."""
        return None if self.prompt is None else UNTOLD.sub(" ", self.prompt)

    @property
    def given(self) -> dict[str, object]:
        """What the model was given."""
        told = {} if self.title is None else {"prompt": self.title}
        return told | {"seed": self.seed} | self.parameters

    @property
    def comment(self) -> str:
        """All of it, as JSON."""
        made = {"digital_source_type": self.source, "model": self.model}
        return json.dumps(made | self.given, ensure_ascii=False)

    def build_fields(self) -> dict[str, str]:
        """Return the tags of containers whose names are free: Vorbis comments, ID3's TXXX."""
        title = {} if self.title is None else {"title": self.title}
        return title | {
            "comment": self.comment,
            "software": SOFTWARE,
            "DIGITALSOURCETYPE": self.source,
        }

    def build_xmp(self) -> bytes:
        """Return the XMP packet (ISO 16684-1)."""
        packet = XMP.format(source=self.source, software=SOFTWARE, description=escape(self.comment))
        return packet.encode()


BYTES: dict[SampleFormat, int] = {"s16": 2, "s24": 3, "f32": 4}
PCM, FLOAT = 1, 3


def build_wav_header(
    form: SampleFormat, rate: int, channels: int, samples: int, tags: Tags | None
) -> bytes:
    """Return all that goes before a WAV file's samples, with its tags as INFO and as XMP."""
    block = BYTES[form] * channels
    kind = FLOAT if form == "f32" else PCM
    chunks = _build_chunk(
        b"fmt ",
        struct.pack("<HHIIHH", kind, channels, rate, rate * block, block, 8 * BYTES[form]),
    )
    if kind == FLOAT:
        chunks += _build_chunk(b"fact", struct.pack("<I", samples))
    if tags:
        info = _build_chunk(b"ISFT", _encode_text(SOFTWARE)) + _build_chunk(
            b"ICMT", _encode_text(tags.comment)
        )
        if tags.title is not None:
            info += _build_chunk(b"INAM", _encode_text(tags.title))
        chunks += _build_chunk(b"LIST", b"INFO" + info) + _build_chunk(b"_PMX", tags.build_xmp())
    size = samples * block
    # RIFF pads a chunk to whole words; `PcmSink` sends the byte.
    whole = 4 + len(chunks) + 8 + size + size % 2
    return b"RIFF" + struct.pack("<I", whole) + b"WAVE" + chunks + b"data" + struct.pack("<I", size)


def _encode_text(value: str) -> bytes:
    return value.encode() + b"\0"


def _build_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
