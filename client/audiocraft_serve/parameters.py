"""Defines the parameters of the client's methods, with the names of the server's JSON fields.

A parameter that is left out has the server's default; the server's `/docs` page lists them.
"""

from os import PathLike
from typing import Literal, Required, TypedDict

File = bytes | str | PathLike[str]
"""The bytes of a file, or its path."""
Format = Literal["wav", "pcm", "flac", "mp3", "opus", "ogg", "aac"]
SampleFormat = Literal["s16", "s24", "f32"]
Normalize = Literal["none", "clip", "peak", "rms", "loudness"]
Quality = Literal["draft", "standard", "high", "auto"]
Decoder = Literal["encodec", "mbd"]
Environment = Literal["forest", "ocean", "city", "dungeon"]


class SamplingParameters(TypedDict, total=False):
    """Parameters of sampling: how the model draws codes."""

    temperature: float
    """Sampling temperature from 0 (greedy) to 10."""
    top_k: int
    """Draw from the k most likely codes; 0: from all codes."""
    top_p: float
    """Draw from the most likely codes whose sum reaches this probability; replaces `top_k`."""
    seed: int
    """Seed of sampling; equal seeds and parameters give equal clips."""
    model: str
    """Name of a model that `models` lists."""
    guidance_scale: float
    """How closely the audio follows the text, from 0 to 20."""


class FileParameters(TypedDict, total=False):
    """Parameters of the audio file."""

    format: Format
    sample_format: SampleFormat
    sample_rate: int
    """Sample rate in Hz."""
    bitrate: int
    """Bit rate of mp3, aac and opus in kbit/s."""
    tag_prompt: bool
    """Whether the prompt is written into the file's metadata."""


class OutputParameters(FileParameters, total=False):
    """Parameters of a clip's audio file."""

    normalize: Normalize
    fade_in: float
    """Fade-in in seconds."""
    fade_out: float
    """Fade-out in seconds."""
    trim_silence: bool


class StreamParameters(SamplingParameters, OutputParameters, total=False):
    """Parameters of one clip that is received while it is generated."""

    duration: float
    """Length in seconds, which includes the audio that is continued."""
    quality: Quality
    """Quality tier, which sets the parameters of model, decoder and file that are not given."""
    target_s: float
    """With `auto`, the seconds within which the clip should be complete."""
    greedy: bool
    extend_stride: float
    """Seconds between the windows of a clip that is longer than the model's window."""
    cache: bool
    """Whether the server may return a cached result; needs a seed."""
    continue_from: File
    """Audio, or a file of `encode_file`, that the clip continues."""
    start: float
    """Start of the part of `continue_from` that is continued, in seconds."""
    end: float
    """End of that part, in seconds."""
    include_prompt: bool
    """Whether the clip begins with the audio that it continues."""
    melody: File
    """Audio whose melody the clip follows; needs a model with melody conditioning."""


class GenerationParameters(StreamParameters, total=False):
    """Parameters of `Client.generate`."""

    n: int
    """Number of variations per prompt."""
    decoder: Decoder
    return_codes: bool


FILES = ("continue_from", "melody")
"""Names of the parameters that are files."""


class SectionParameters(TypedDict, total=False):
    """A section of a song; `bars` or `seconds` gives its length."""

    name: Required[str]
    prompt: Required[str]
    bars: int
    seconds: float


class EffectParameters(TypedDict, total=False):
    """A sound effect that is mixed into a song."""

    prompt: Required[str]
    at: Required[float]
    """Start in the song, in seconds."""
    duration: float
    gain_db: float


class WorkflowParameters(SamplingParameters, FileParameters, total=False):
    """Parameters of all workflows."""

    loudness: float
    """Loudness of the mix in LUFS."""
    cache: bool
    """Whether the server may return a cached result; needs a seed."""


class SongParameters(WorkflowParameters, total=False):
    """Parameters of `Client.song`."""

    key: str
    """Musical key, for example `C major` or `F# minor`."""
    tempo: float
    """Tempo in beats per minute."""
    beats_per_bar: int
    crossfade_beats: float
    effects: list[EffectParameters]
    effects_model: str
    distribution: dict[str, float]
    """`{"bandwidth": 2.2}` adds a second mix, coded by EnCodec at 2.2 kbit/s."""


class PodcastParameters(WorkflowParameters, total=False):
    """Parameters of `Client.podcast`."""

    intro: float
    """Length of the intro in seconds."""
    outro: float
    """Length of the outro in seconds."""
    transitions: int
    """Number of transition sounds, from 0 to 5."""
    bed_gain_db: float
    """Gain in dB of the music under the voice."""
    effects_model: str
    voice: File
    """Audio with speech, which the music is mixed under."""


class AmbienceParameters(WorkflowParameters, total=False):
    """Parameters of `Client.ambience`: give either `environment` or `prompt`."""

    environment: Environment
    prompt: str
    duration: float
    """Length in seconds."""


class StyleParameters(WorkflowParameters, total=False):
    """Parameters of `Client.style_transfer`."""

    duration: float
    """Length in seconds; by default the length of the file."""
