"""How a clip becomes a file: its format, its level, its edges."""

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
    """A kind of file."""

    media_type: str
    sample_formats: Sequence[SampleFormat] = ("s16",)
    """Whole numbers of 16 or 24 bits, or floats; of compressed formats there is no choice."""
    rates: Sequence[int] | None = None
    """Samples a second that it may have; None is any in `RATES`."""
    bitrates: tuple[int, int] | None = None
    """Kilobits a second, least and most, where they may be chosen; a low rate may have less."""
    bitrate: int | None = None
    """By default."""


FORMATS: dict[str, Format] = {
    "wav": Format("audio/wav", get_args(SampleFormat)),
    "pcm": Format("audio/pcm", get_args(SampleFormat)),
    "flac": Format("audio/flac", ("s16", "s24")),
    "mp3": Format("audio/mpeg", rates=MPEG_RATES, bitrates=(32, 320), bitrate=128),
    "aac": Format("audio/aac", rates=MPEG_RATES, bitrates=(32, 320), bitrate=128),
    "opus": Format("audio/ogg; codecs=opus", rates=(48000,), bitrates=(16, 256), bitrate=96),
    "ogg": Format("audio/ogg; codecs=vorbis"),
}


@dataclass(frozen=True)
class Output:
    """What is wanted of a file."""

    format: FormatName = "wav"
    sample_format: SampleFormat = "s16"
    sample_rate: int | None = None
    """By default the model's, or the nearest above that the format may have."""
    bitrate: int | None = None
    normalize: Normalize = "none"
    fade_in: float = 0.0
    fade_out: float = 0.0
    """Seconds."""
    trim_silence: bool = False
    tag_prompt: bool = True
    """Whether the file tells its prompt."""

    @property
    def kind(self) -> Format:
        """Its format."""
        return FORMATS[self.format]

    @property
    def whole_clip_for(self) -> str | None:
        """Name the parameter that cannot be had while the clip is being made, if there is one."""
        if self.normalize not in ("none", "clip"):
            return "normalize"
        return "trim_silence" if self.trim_silence else None

    def check_format(self) -> None:
        """Raise InvalidRequest where the format has no such thing."""
        kind = self.kind
        if self.sample_format not in kind.sample_formats:
            valid = ", ".join(kind.sample_formats)
            problem = f"{self.format} has {valid}, not {self.sample_format}"
            raise InvalidRequest(f"sample_format: {problem}", "sample_format")
        if self.sample_rate is not None and not self._has_rate(self.sample_rate):
            valid = (
                ", ".join(map(str, kind.rates)) if kind.rates else "from {} to {}".format(*RATES)
            )
            problem = f"{self.format} has {valid}, not {self.sample_rate}"
            raise InvalidRequest(f"sample_rate: {problem}", "sample_rate")
        if self.bitrate is not None:
            least, most = kind.bitrates or (0, -1)
            if not least <= self.bitrate <= most:
                valid = f"from {least} to {most} kbit/s" if kind.bitrates else "none to choose"
                problem = f"{self.format} has {valid}, not {self.bitrate}"
                raise InvalidRequest(f"bitrate: {problem}", "bitrate")

    def rate_for(self, model_rate: int) -> int:
        """Return the file's samples a second."""
        if self.sample_rate is not None:
            return self.sample_rate
        if self._has_rate(model_rate):
            return model_rate
        rates = self.kind.rates or RATES
        return min((rate for rate in rates if rate > model_rate), default=max(rates))

    def _has_rate(self, rate: int) -> bool:
        rates = self.kind.rates
        return rate in rates if rates else RATES[0] <= rate <= RATES[1]
