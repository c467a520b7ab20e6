"""What can be asked for, by name: the fields of the server's own bodies.

What is left out has the server's default, which `docs` of the server and its `/docs` page tell.
"""

from os import PathLike
from typing import Literal, Required, TypedDict

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


class FileParameters(TypedDict, total=False):
    """How what is made becomes a file."""

    format: Format
    sample_format: Literal["s16", "s24", "f32"]
    sample_rate: int
    """Samples a second."""
    bitrate: int
    """Of mp3, aac and opus, in kbit/s."""
    tag_prompt: bool
    """Whether the file tells its prompt."""


class OutputParameters(FileParameters, total=False):
    """How a clip becomes a file."""

    normalize: Literal["none", "clip", "peak", "rms", "loudness"]
    fade_in: float
    """Seconds."""
    fade_out: float
    """Seconds."""
    trim_silence: bool


class StreamParameters(SamplingParameters, OutputParameters, total=False):
    """All that one clip may be asked for by, while it is made."""

    duration: float
    """Seconds, with what is continued."""
    quality: Literal["draft", "standard", "high", "auto"]
    """Stands for what is not said of the model, the decoder and the file."""
    target_s: float
    """Seconds within which `auto` would have it made."""
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


class SectionParameters(TypedDict, total=False):
    """A section of a song, of so many bars or seconds."""

    name: Required[str]
    prompt: Required[str]
    bars: int
    seconds: float


class EffectParameters(TypedDict, total=False):
    """A sound that is laid over a song."""

    prompt: Required[str]
    at: Required[float]
    """Seconds from the song's beginning."""
    duration: float
    gain_db: float


class WorkflowParameters(SamplingParameters, FileParameters, total=False):
    """What all workflows may be asked for by."""

    loudness: float
    """Of the mix, in LUFS."""
    cache: bool
    """Whether an answer that was kept will do, where a seed is given."""


class SongParameters(WorkflowParameters, total=False):
    """Of a song."""

    key: str
    """Such as `C major` or `F# minor`."""
    tempo: float
    """Beats a minute."""
    beats_per_bar: int
    crossfade_beats: float
    effects: list[EffectParameters]
    effects_model: str
    distribution: dict[str, float]
    """`{"bandwidth": 2.2}`: a second mix, through EnCodec at so many kbit/s."""


class PodcastParameters(WorkflowParameters, total=False):
    """Of a podcast."""

    intro: float
    """Seconds."""
    outro: float
    """Seconds."""
    transitions: int
    """How many sounds, from 0 to 5."""
    bed_gain_db: float
    """Of the music under a voice."""
    effects_model: str
    voice: File
    """Speech, to lay music under."""


class AmbienceParameters(WorkflowParameters, total=False):
    """Of an ambience: an environment, or a prompt."""

    environment: Literal["forest", "ocean", "city", "dungeon"]
    prompt: str
    duration: float
    """Seconds."""


class StyleParameters(WorkflowParameters, total=False):
    """Of a style transfer."""

    duration: float
    """Seconds; by default the file's."""
