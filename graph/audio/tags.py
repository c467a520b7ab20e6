"""What a file says of itself: how it was made, and in standard terms that a machine made it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's digital source type of media that a trained model made."""
SOFTWARE = "audiocraft-serve"
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
    parameters: Mapping[str, object]
    prompt: str | None
    """None: not to be told."""

    @property
    def comment(self) -> str:
        """All of it, as JSON."""
        made = {"model": self.model, "seed": self.seed, **self.parameters}
        if self.prompt is not None:
            made = {"prompt": self.prompt, **made}
        return json.dumps({"ai_generated": True, **made}, ensure_ascii=False)

    def fields(self) -> dict[str, str]:
        """Return the tags of containers whose names are free: Vorbis comments, ID3's TXXX."""
        title = {} if self.prompt is None else {"title": self.prompt}
        return title | {
            "comment": self.comment,
            "software": SOFTWARE,
            "DIGITALSOURCETYPE": AI_GENERATED,
        }

    def xmp(self) -> bytes:
        """Return the XMP packet (ISO 16684-1)."""
        packet = XMP.format(
            source=AI_GENERATED, software=SOFTWARE, description=escape(self.comment)
        )
        return packet.encode()
