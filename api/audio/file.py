"""A clip's file, whole or while it is made."""

from dataclasses import dataclass

from api.audio.credentials import Signer
from api.audio.encoder import Encoder, encode
from api.audio.finishing import fade_edges, finish_clip, normalize_level
from api.audio.output import Output
from api.audio.tags import Tags
from deployments.tracing import span
from engine.params import Waveform


@dataclass(frozen=True)
class ClipFile:
    """A whole clip's file."""

    data: bytes
    seconds: float


def build_file(
    audio: Waveform, output: Output, tags: Tags | None = None, signer: Signer | None = None
) -> ClipFile:
    """Build the file of a clip; its tags are signed where the format can hold a signature.

    Raises ApiError 503 where it cannot be signed now.
    """
    with span(f"encode {output.format}"):
        samples = finish_clip(audio.array(), audio.sample_rate, output)
        data = encode(samples, audio.sample_rate, output, tags)
    if signer and tags and signer.takes(output):
        with span(f"sign {output.format}"):
            data = signer.sign(data, output, tags)
    return ClipFile(data, samples.shape[1] / audio.sample_rate)


class GrowingFile:
    """The file of a clip of `samples`, while they are made; needs no whole clip."""

    def __init__(
        self, output: Output, rate: int, channels: int, samples: int, tags: Tags | None
    ) -> None:
        assert not output.whole_clip_for
        self._output, self._rate, self._samples = output, rate, samples
        self._encoder = Encoder(output, rate, channels, samples, tags, streamed=True)
        self._at = 0

    def add(self, audio: Waveform) -> bytes:
        """Take the next samples; return the bytes that are ready."""
        with span(f"encode {self._output.format}"):
            made = fade_edges(audio.array(), self._at, self._samples, self._rate, self._output)
            self._at += audio.samples
            return self._encoder.add(normalize_level(made, self._rate, self._output.normalize))

    def end(self) -> bytes:
        """Return the rest of the file."""
        with span(f"encode {self._output.format}"):
            return self._encoder.end()
