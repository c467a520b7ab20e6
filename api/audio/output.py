"""The settings of an output file: format, level and edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.errors import InvalidRequest

FormatName = Literal["wav", "flac", "mp3", "opus", "ogg", "aac", "pcm"]
SampleFormat = Literal["s16", "s24", "f32"]
Normalize = Literal["none", "clip", "peak", "rms", "loudness"]
RATES = (8000, 96000)
MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class Format:
    """A file format."""

    title: str
    """The name for people."""
    media_type: str
    sample_formats: Sequence[SampleFormat] = ("s16",)
    """Integers of 16 or 24 bits, or floats; compressed formats have only the default."""
    rates: Sequence[int] | None = None
    """The valid sample rates in Hz; None allows every rate within `RATES`."""
    bitrates: tuple[int, int] | None = None
    """The lowest and the highest bit rate in kbit/s, or None if the format has no bit rate."""
    bitrate: int | None = None
    """The default bit rate in kbit/s."""


FORMATS: dict[str, Format] = {
    "wav": Format("WAV", "audio/wav", get_args(SampleFormat)),
    "pcm": Format("PCM", "audio/pcm", get_args(SampleFormat)),
    "flac": Format("FLAC", "audio/flac", ("s16", "s24")),
    "mp3": Format("MP3", "audio/mpeg", rates=MPEG_RATES, bitrates=(32, 320), bitrate=128),
    "aac": Format("AAC", "audio/aac", rates=MPEG_RATES, bitrates=(32, 320), bitrate=128),
    "opus": Format(
        "Opus", "audio/ogg; codecs=opus", rates=(48000,), bitrates=(16, 256), bitrate=96
    ),
    "ogg": Format("Ogg Vorbis", "audio/ogg; codecs=vorbis"),
}


@dataclass(frozen=True)
class Output:
    """The settings of one file."""

    format: FormatName = "wav"
    sample_format: SampleFormat = "s16"
    sample_rate: int | None = None
    """In Hz; the default is the model's rate, or the next higher rate of the format."""
    bitrate: int | None = None
    """In kbit/s."""
    normalize: Normalize = "none"
    fade_in: float = 0.0
    fade_out: float = 0.0
    """The lengths of the fades are in seconds."""
    trim_silence: bool = False
    tag_prompt: bool = True
    """Whether the tags of the file include the prompt."""

    @property
    def kind(self) -> Format:
        """The format with the name `format`."""
        return FORMATS[self.format]

    @property
    def whole_clip_for(self) -> str | None:
        """The name of a setting that needs the whole clip, or None."""
        if self.normalize not in ("none", "clip"):
            return "normalize"
        return "trim_silence" if self.trim_silence else None

    def check_format(self) -> None:
        """Check the settings. Raises InvalidRequest if the format does not support one."""
        kind = self.kind
        if self.sample_format not in kind.sample_formats:
            valid = ", ".join(kind.sample_formats)
            problem = f"{self.format} supports {valid}, not {self.sample_format}"
            raise InvalidRequest(f"sample_format: {problem}", "sample_format")
        if self.sample_rate is not None and not self._has_rate(self.sample_rate):
            valid = (
                ", ".join(map(str, kind.rates)) if kind.rates else "from {} to {}".format(*RATES)
            )
            problem = f"{self.format} supports {valid}, not {self.sample_rate}"
            raise InvalidRequest(f"sample_rate: {problem}", "sample_rate")
        if self.bitrate is not None:
            least, most = kind.bitrates or (0, -1)
            if not least <= self.bitrate <= most:
                valid = f"from {least} to {most} kbit/s" if kind.bitrates else "no bit rate"
                problem = f"{self.format} supports {valid}, not {self.bitrate}"
                raise InvalidRequest(f"bitrate: {problem}", "bitrate")

    def rate_for(self, model_rate: int) -> int:
        """Return the file's sample rate in Hz, for the rate of the model."""
        if self.sample_rate is not None:
            return self.sample_rate
        if self._has_rate(model_rate):
            return model_rate
        rates = self.kind.rates or RATES
        return min((rate for rate in rates if rate > model_rate), default=max(rates))

    def _has_rate(self, rate: int) -> bool:
        rates = self.kind.rates
        return rate in rates if rates else RATES[0] <= rate <= RATES[1]
