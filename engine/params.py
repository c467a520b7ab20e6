"""The data that processes exchange: frozen dataclasses that may hold numpy, never torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOUDEST_SAMPLE = 1000.0
"""The largest sample that models take, where full scale is 1: far above, their sums overflow."""
LEAST_TEMPERATURE = 0.01
"""The lowest temperature above 0; far below, logits that are divided by it overflow."""


def describe_bad_samples(samples: NDArray[np.floating]) -> str | None:
    """Return why no model can take these samples, or None if models can."""
    if not np.isfinite(samples).all():
        return "samples that are not finite numbers"
    if samples.size and np.abs(samples).max() > LOUDEST_SAMPLE:
        return f"samples beyond {LOUDEST_SAMPLE:g} times full scale"
    return None


@dataclass(frozen=True, slots=True)
class Codes:
    """Codec tokens [codebooks, frames], stored as little-endian int16 in C order."""

    codebooks: int
    frames: int
    data: bytes

    @classmethod
    def pack(cls, array: NDArray[np.integer]) -> "Codes":
        """Pack an array [codebooks, frames] of integers from 0 to 32767."""
        assert array.ndim == 2, f"codes must be [codebooks, frames], got {array.shape}"
        codebooks, frames = array.shape
        return cls(codebooks, frames, np.ascontiguousarray(array, "<i2").tobytes())

    @classmethod
    def join(cls, parts: Sequence[NDArray[np.int16]]) -> "Codes":
        """Join consecutive parts of a clip, each [codebooks, frames], and pack the result."""
        return cls.pack(np.concatenate(parts, axis=1))

    def array(self) -> NDArray[np.int16]:
        """Return the codes as a read-only array, int16 [codebooks, frames]."""
        return np.frombuffer(self.data, "<i2").reshape(self.codebooks, self.frames)


@dataclass(frozen=True, slots=True)
class Waveform:
    """Audio [channels, samples], full scale ±1, stored as little-endian float32 in C order."""

    sample_rate: int
    channels: int
    data: bytes

    @classmethod
    def pack(cls, array: NDArray[np.floating], sample_rate: int) -> "Waveform":
        """Pack an array [channels, samples] of floats, full scale ±1."""
        assert array.ndim == 2, f"audio must be [channels, samples], got {array.shape}"
        return cls(sample_rate, array.shape[0], np.ascontiguousarray(array, "<f4").tobytes())

    @property
    def samples(self) -> int:
        """The number of samples in each channel."""
        return len(self.data) // (4 * self.channels)

    @property
    def seconds(self) -> float:
        """The duration of the audio in seconds."""
        return self.samples / self.sample_rate

    def array(self) -> NDArray[np.float32]:
        """Return the audio as a read-only array, float32 [channels, samples]."""
        return np.frombuffer(self.data, "<f4").reshape(self.channels, -1)


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """The parameters of one clip for a language model.

    Names, meaning and defaults follow AudioCraft's `MusicGen.set_generation_params`.
    """

    text: str
    frames: int
    """Length of the clip in codec frames, at least 1; a `prompt` is included."""
    seed: int
    """Seed of the random draws, 0 to 2**63 - 1; the same seed gives the same codes."""
    temperature: float = 1.0
    """Divisor of the logits; 0 means greedy decoding."""
    top_k: int = 250
    """Sample from the k most likely codes; 0 means all. Ignored if `top_p` is above 0."""
    top_p: float = 0.0
    """Sample from the most likely codes whose probabilities add up to this; 0 turns it off."""
    guidance_scale: float = 3.0
    """Scale of classifier-free guidance; 1 uses the conditional logits without guidance."""
    variation: int = 0
    """Number of the variation: it changes the random draws and leaves the conditions equal."""
    stride_seconds: float | None = None
    """Distance between two windows of a clip longer than one window; None: the model's default."""
    melody: Waveform | None = None
    """Audio whose chroma a melody model follows: mono, at the model's sample rate."""
    prompt: Codes | None = None
    """Codes that the clip continues from; `frames` includes them, the result does not."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The next codes of a clip, with its waiting time and its running time so far."""

    codes: Codes
    wait_seconds: float
    """Seconds from arrival until the request got a slot."""
    run_seconds: float
    """Seconds since the request got its slot."""


@dataclass(frozen=True, slots=True)
class CodesPiece:
    """Consecutive codes that a codec decodes or has encoded; by default the whole clip."""

    codes: Codes
    state: bytes = b""
    """The codec's state after the previous piece; empty for the first piece."""
    ended: bool = True
    """Whether this is the last piece of the clip."""


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """Consecutive samples that a codec encodes or has decoded; by default the whole clip."""

    audio: Waveform
    state: bytes = b""
    """The codec's state after the previous piece; empty for the first piece."""
    ended: bool = True
    """Whether this is the last piece of the clip."""


@dataclass(frozen=True, slots=True)
class DiffusionParams:
    """The parameters of one clip that multi-band diffusion decodes."""

    codes: Codes
    seed: int
    equalize: bool = True
    """Match the levels of the codec's output in 32 bands; AudioCraft does so for tokens only."""
    samples: int | None = None
    """Samples per channel to return; by default as many as the frames hold."""


@dataclass(frozen=True, slots=True)
class Diffusing:
    """The progress of a clip in evaluations of a U-Net; the last report carries the audio."""

    done: int
    total: int
    audio: Waveform | None = None


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """The largest upload that is accepted."""

    max_bytes: int
    max_seconds: float
    max_channels: int


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """What a file's container says of its audio."""

    seconds: float
    """The length of all packets of the audio stream."""
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class LanguageModelInfo:
    """The properties of a language model."""

    codebooks: int
    cardinality: int
    sample_rate: int
    """Sample rate in Hz of the codec that the model was trained on."""
    frame_rate: float
    """Codec frames per second of that codec."""
    max_seconds: float
    """Length of the longest window; a longer clip is generated in several windows."""
    melody: bool = False
    """Whether the model can follow a melody."""
    stride_seconds: float = 18.0
    """Seconds by which windows advance, where a request does not choose."""
    delay_frames: int = 0
    """Frames by which the last codebook is generated later than the first."""
    prefix_positions: int = 0
    """Positions of a melody that each window feeds before its first codes."""


@dataclass(frozen=True, slots=True)
class CodecInfo:
    """The properties of a codec."""

    codebooks: int
    cardinality: int
    sample_rate: int
    channels: int
    frame_rate: float
    """Codec frames per second."""


@dataclass(frozen=True, slots=True)
class DiscriminatorsInfo:
    """The input format of the discriminators, and how their logits become a probability."""

    sample_rate: int
    channels: int
    weights: Mapping[str, float] | None
    """Weight of each discriminator's mean logit in the logistic model; None: not calibrated."""
    bias: float
    """Bias of the logistic model."""


@dataclass(frozen=True, slots=True)
class WindowScores:
    """The results of the discriminators for one window of audio."""

    samples: int
    scores: Mapping[str, float]
    """Per discriminator, the mean sigmoid of its first scale's logits, 0 to 1; high is real."""
    logits: Mapping[str, Sequence[float]]
    """Per discriminator, the mean logit of each of its scales."""
    feature_maps: Sequence[Sequence[float]]
    """One list for each layer of the discriminators' first scales, in order."""


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """The load of a replica that works in batches; counters start with the replica."""

    busy: int
    """Items that are waiting or in work now."""
    items: int
    """Items in all batches so far."""
    batches: int
    """Batches so far."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a language model's replica; sums and means start with the replica."""

    requests: int
    """Requests that are being encoded, waiting or running."""
    waiting: int
    running: int
    slots: int
    """The most requests like the recent ones that the slots and pages let run together."""
    rows: int
    """Rows of the running requests: two per request with guidance, else one."""
    queued_row_seconds: float
    """Seconds of audio times rows, summed over the waiting requests."""
    completed: int
    cancelled: int
    steps: int
    step_ms: float
    """Mean duration of a step in milliseconds."""
    mean_running: float
    """Mean number of requests per step."""
    rows_used: float
    """Rows of requests divided by rows computed, over all steps; the rest was padding."""
    frames: int
    """Frames generated so far."""
    frames_per_second: float
    """Frames generated per second of decoding."""
    first_chunk_seconds: float
    """Mean time from a request's arrival to its first chunk of codes."""
    row_positions: int = 0
    """Rows times the positions that they fed, in all steps."""
    pages: int = 0
    """Pages of the cache; fewer for a while after memory ran out."""
    free_pages: int = 0
    """Pages that no request holds now. The running requests may need them before they end."""
