"""Defines a task, which is one request that makes or reads audio, and the events of its run."""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from deployments.ledger_state import Charge, Share
from deployments.settings import DiffusionSettings
from engine.params import Codes, GenerationParams, MediaLimits, UploadInfo, Waveform


@dataclass(frozen=True)
class Upload:
    """An uploaded file that was probed and is still to be decoded."""

    data: bytes
    field: str
    """The field of the request that held the file."""
    limits: MediaLimits
    info: UploadInfo


@dataclass(frozen=True)
class ClipRequest:
    """One clip to make, and how its codes become audio."""

    params: GenerationParams
    diffusion: DiffusionSettings | None = None
    """The diffusion model that decodes the codes, instead of the model's codec."""
    include_prompt: bool = True
    """Whether a continuation's audio begins with what it continues."""
    turn: float = 0.0
    """The clip's place in the queue of its model, lowest first; set when its task runs."""

    @property
    def skipped_frames(self) -> int:
        """Frames of the clip that its audio leaves out."""
        prompt = self.params.prompt
        return prompt.frames if prompt and not self.include_prompt else 0


@dataclass(frozen=True)
class StageProgress:
    """The progress of a clip."""

    stage: str
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""
    done: int
    total: int


@dataclass(frozen=True)
class DecodedPart:
    """The next codes of a clip, and the samples that are known by then."""

    codes: Codes
    audio: Waveform
    state: bytes = b""
    """The state that the codec needs to continue."""


@dataclass(frozen=True)
class ClipAudio:
    """The audio and codes of a finished clip, and the seconds of each stage."""

    audio: Waveform
    codes: Codes
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Progress:
    """The progress of a stage of one clip, and of the whole task."""

    clip: int
    """The clip's place among the task's clips, from 0."""
    stage: str
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""
    done: int
    total: int
    progress: float
    """The share of the task's frames that are generated, from 0 to 1."""
    name: str = ""
    """The name of the clip, in a workflow."""


@dataclass(frozen=True)
class AudioPart:
    """The next samples of a clip that is streamed, with the codes that they were decoded from."""

    clip: int
    codes: Codes
    audio: Waveform
    total_samples: int = 0
    """How many samples per channel the whole clip will have; 0 in live sessions."""
    state: bytes = b""
    """The state that the codec needs to continue after this part."""


@dataclass(frozen=True)
class Clip:
    """A complete clip: its codes, its audio, and the seconds of each stage."""

    clip: int
    model: str
    codes: Codes
    audio: Waveform | None
    """The audio of the clip; None where it was streamed in parts."""
    samples: int = 0
    """The number of samples per channel, where the clip was streamed."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """The seconds that each stage took."""
    diffusion: str | None = None
    """The diffusion model that decoded the clip, if one did."""


@dataclass(frozen=True)
class ChargeLeft:
    """What is left of one of a task's charges; only `Executor` reads it."""

    name: str
    """The model, or the name that `ChargeBegin` gave the charge."""
    left: float = 0.0
    """The part of the price, from 1 to 0; at 0 the charge ends."""
    clips: int = 1
    """The clips that the task still runs at once."""


@dataclass(frozen=True)
class ChargeBegin:
    """A charge for work that begins now and is not refused; only `Executor` reads it.

    A fast model that follows a slow one, such as a codec, is charged when its stage begins: until
    then the work could not be done.
    """

    charge: Charge
    name: str
    """A name of its own: several stages of a task may use one model at a time."""


@dataclass(frozen=True)
class Turn:
    """A task's place in the queue of a model, in Unix seconds; the lowest turn starts first."""

    start: float = 0.0
    length_s: float = 0.0
    """The seconds until the next turn of the same key."""

    def get_part(self, share: float) -> float:
        """Return the turn of the part of the task that begins after `share` of it, 0 to 1."""
        return self.start + share * self.length_s


Turns = Mapping[str, Turn]
"""The turns of one task by model."""


@dataclass(frozen=True)
class Result:
    """The result of a task, which is always the last event; each kind of task has its own."""


Event = Progress | AudioPart | Clip | ChargeBegin | ChargeLeft | Result


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One request that makes or reads audio. Everything that can be checked has been checked."""

    share: Share
    """The share of the owner's API key."""
    began: float
    """The time of the request, by `time.perf_counter`."""
    repeatable: bool = False
    """Whether the same request has the same answer, and a kept answer will do."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The name of the model that the request is counted by."""

    @property
    def seed(self) -> int | None:
        """The seed, or None where the task draws no random numbers."""
        return None

    @abstractmethod
    def price(self) -> Sequence[Charge]:
        """Return what the task costs each model that admission decides about."""

    @abstractmethod
    def count_bytes(self) -> int:
        """Return how many bytes of audio and uploads the ingress holds for the task, at most."""

    @abstractmethod
    def content(self) -> Hashable:
        """Return what makes the answer, as a value whose `repr` tells two answers apart."""

    @abstractmethod
    def run(self, turns: Turns) -> AsyncGenerator[Event, None]:
        """Do the work, and yield events, a `Result` last. Closing the generator stops the models.

        `turns` has an entry for each model that the task is charged for.

        Raises ApiError, InvalidRequest or InvalidAudio.
        """

    def key(self) -> str:
        """Return a hash of what makes the answer. Uploads are hashed: call it on a thread.

        Keys of two owners differ, so that nobody learns what others asked for.
        """
        whole = type(self).__name__, self.share.name, self.content()
        return sha256(repr(whole).encode()).hexdigest()


def count_audio_bytes(seconds: float, sample_rate: int, channels: int) -> int:
    """Return the bytes of float32 samples."""
    return 4 * channels * math.ceil(seconds * sample_rate)


def count_upload_bytes(upload: Upload | None, sample_rate: int, channels: int) -> int:
    """Return the bytes of a file and of its decoded samples."""
    if upload is None:
        return 0
    return len(upload.data) + count_audio_bytes(upload.info.seconds, sample_rate, channels)


def hash_upload(data: bytes) -> bytes:
    """Return a hash that stands for an upload in a task's content."""
    return sha256(data).digest()
