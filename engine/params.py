"""What crosses process boundaries: plain frozen dataclasses, numpy at most, never torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Codes:
    """Codec tokens [codebooks, frames], as little-endian int16 in C order."""

    codebooks: int
    frames: int
    data: bytes

    @classmethod
    def pack(cls, array: NDArray[np.integer]) -> "Codes":
        """Pack integers [codebooks, frames] in 0..32767."""
        assert array.ndim == 2, f"codes must be [codebooks, frames], got {array.shape}"
        codebooks, frames = array.shape
        return cls(codebooks, frames, np.ascontiguousarray(array, "<i2").tobytes())

    @classmethod
    def join(cls, parts: Sequence[NDArray[np.int16]]) -> "Codes":
        """Pack parts of one clip, each [codebooks, frames], in order."""
        return cls.pack(np.concatenate(parts, axis=1))

    def array(self) -> NDArray[np.int16]:
        """Return a read-only view, int16 [codebooks, frames]."""
        return np.frombuffer(self.data, "<i2").reshape(self.codebooks, self.frames)


@dataclass(frozen=True, slots=True)
class Waveform:
    """Audio [channels, samples], as little-endian float32 in C order, full scale ±1."""

    sample_rate: int
    channels: int
    data: bytes

    @classmethod
    def pack(cls, array: NDArray[np.floating], sample_rate: int) -> "Waveform":
        """Pack floats [channels, samples]."""
        assert array.ndim == 2, f"audio must be [channels, samples], got {array.shape}"
        return cls(sample_rate, array.shape[0], np.ascontiguousarray(array, "<f4").tobytes())

    @property
    def samples(self) -> int:
        """Samples of a channel."""
        return len(self.data) // (4 * self.channels)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples / self.sample_rate

    def array(self) -> NDArray[np.float32]:
        """Return a read-only view, float32 [channels, samples]."""
        return np.frombuffer(self.data, "<f4").reshape(self.channels, -1)


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """One request to a language model.

    Defaults and meaning are AudioCraft's (`MusicGen.set_generation_params`).
    """

    text: str
    frames: int
    """Codec frames of the clip, at least 1."""
    seed: int
    """0 to 2**63 - 1; the same seed gives the same codes."""
    temperature: float = 1.0
    """0 means greedy decoding."""
    top_k: int = 250
    """Sample among the k likeliest; 0 means all. Ignored where `top_p` is above 0."""
    top_p: float = 0.0
    guidance_scale: float = 3.0
    """Classifier-free guidance; 1 follows the conditional model alone."""
    variation: int = 0
    """Requests that differ in it alone draw differently and share their conditions."""
    stride_seconds: float | None = None
    """How far a window moves along a clip longer than it; None is the model's own."""
    melody: Waveform | None = None
    """What a melody model takes the chroma of, mono, at the model's rate."""
    prompt: Codes | None = None
    """Codes that the clip begins with; `frames` counts them, and they are not given back."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The next codes of a clip, with the seconds it waited for the model and has run on it."""

    codes: Codes
    wait_seconds: float
    run_seconds: float


@dataclass(frozen=True, slots=True)
class CodesPiece:
    """The next codes of a clip, to or from a codec; by default, all of them."""

    codes: Codes
    state: bytes = b""
    """What the codec made of the pieces before, empty at the start."""
    ended: bool = True
    """Whether no more follows."""


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """The next samples of a clip, to or from a codec; by default, all of them."""

    audio: Waveform
    state: bytes = b""
    ended: bool = True


@dataclass(frozen=True, slots=True)
class DiffusionParams:
    """One clip to make by multi-band diffusion."""

    codes: Codes
    seed: int
    equalize: bool = True
    """Match the codec's own output in 32 bands, as AudioCraft does for tokens, not for audio."""
    samples: int | None = None
    """A channel, by default all of the frames'."""


@dataclass(frozen=True, slots=True)
class Diffusing:
    """How far a clip is, in evaluations of a U-Net; at the end, the clip."""

    done: int
    total: int
    audio: Waveform | None = None


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What one upload may be."""

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
    """What a language model can do."""

    codebooks: int
    cardinality: int
    sample_rate: int
    """Hz, of the codec that it was trained on."""
    frame_rate: float
    """Frames a second, likewise."""
    max_seconds: float
    """The longest window; longer clips take several."""
    melody: bool = False
    """Whether it can follow a melody."""


@dataclass(frozen=True, slots=True)
class CodecInfo:
    """What a codec takes and gives."""

    codebooks: int
    cardinality: int
    sample_rate: int
    channels: int
    frame_rate: float
    """Frames a second."""


@dataclass(frozen=True, slots=True)
class DiscriminatorsInfo:
    """What a set of discriminators hears, and how its logits become a probability."""

    sample_rate: int
    channels: int
    weights: Mapping[str, float] | None
    """Of each discriminator's mean logit, in the logit of the probability; None: not calibrated."""
    bias: float


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What the discriminators say of one stretch of audio."""

    samples: int
    scores: Mapping[str, float]
    """By discriminator: the mean sigmoid of its first scale's logits, 0 to 1, high is real."""
    logits: Mapping[str, Sequence[float]]
    """By discriminator: the mean logit of each of its scales."""
    feature_maps: Sequence[Sequence[float]]
    """A list a layer, of the discriminators' first scales, in order."""


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """What a replica that works in batches is doing; sums are since it started."""

    busy: int
    """Items that wait or are worked on."""
    items: int
    """Items that were in batches."""
    batches: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica is doing, at one moment; sums and means are since it started."""

    requests: int
    """Waiting, running, or before that: being encoded."""
    waiting: int
    running: int
    slots: int
    rows: int
    """Of the requests that run: two each under guidance."""
    queued_row_seconds: float
    """Of the requests that wait: seconds of audio by rows."""
    completed: int
    cancelled: int
    steps: int
    step_ms: float
    """Mean over steps."""
    mean_running: float
    """Requests in a step, mean over steps."""
    rows_used: float
    """Rows of requests by rows computed, over all steps; the rest is padding."""
    frames: int
    """Frames handed out."""
    frames_per_second: float
    """Frames handed out by seconds in steps."""
    first_chunk_seconds: float
    """From a request's arrival to its first chunk of codes, mean."""
