"""What can be asked for, by name: the fields of the server's own bodies.

What is left out has the server's default, which `docs` of the server and its `/docs` page tell.
"""

from os import PathLike
from typing import Literal, TypedDict

File = bytes | str | PathLike[str]
"""A file's bytes, or where it lies."""
Format = Literal["wav", "pcm", "flac", "mp3", "opus", "ogg", "aac"]


class SamplingParameters(TypedDict, total=False):
    """How codes are drawn."""

    temperature: float
    """From 0, greedy, to 10."""
    top_k: int
    """Draw among the k likeliest; 0: among all."""
    top_p: float
    """Above 0, instead of `top_k`."""
    seed: int
    """The same seed makes the same clip."""
    model: str
    """A name from `models`."""
    guidance_scale: float
    """From 0 to 20: how closely to follow the text."""


class OutputParameters(TypedDict, total=False):
    """How a clip becomes a file."""

    format: Format
    sample_format: Literal["s16", "s24", "f32"]
    sample_rate: int
    """Samples a second."""
    bitrate: int
    """Of mp3, aac and opus, in kbit/s."""
    normalize: Literal["none", "clip", "peak", "rms", "loudness"]
    fade_in: float
    """Seconds."""
    fade_out: float
    """Seconds."""
    trim_silence: bool
    tag_prompt: bool
    """Whether the file tells its prompt."""


class StreamParameters(SamplingParameters, OutputParameters, total=False):
    """All that one clip may be asked for by, while it is made."""

    duration: float
    """Seconds, with what is continued."""
    greedy: bool
    extend_stride: float
    """Seconds by which windows advance in clips that are longer than one."""
    cache: bool
    """Whether an answer that was kept will do, where a seed is given."""
    continue_from: File
    """Audio, or codes of `encode_file`, to go on from."""
    start: float
    """The part of it that is continued, in seconds."""
    end: float
    include_prompt: bool
    """Whether the clip begins with what it continues."""
    melody: File
    """Audio whose melody is followed, by models that can."""


class GenerationParameters(StreamParameters, total=False):
    """All that clips may be asked for by."""

    n: int
    """Variations of each prompt."""
    decoder: Literal["encodec", "mbd"]
    return_codes: bool


FILES = ("continue_from", "melody")
"""Those that are files."""
