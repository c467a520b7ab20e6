"""What the server answers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from audiocraft_serve.errors import UnexpectedAnswer

T = TypeVar("T")
Parts = TypeVar("Parts")
JobStatus = Literal["queued", "running", "finished", "failed", "cancelled"]


def from_json(cls: type[T], data: Mapping[str, Any], **more: Any) -> T:
    """Return a dataclass of an object's fields; what it does not know is left out.

    Raises UnexpectedAnswer where a field is missing.
    """
    names = {one.name for one in fields(cls)}  # type: ignore[arg-type]
    try:
        return cls(**{name: data[name] for name in names & data.keys()} | more)
    except TypeError as error:
        raise UnexpectedAnswer(f"{cls.__name__}: the server's answer lacks fields") from error


def to_json(answer: Any) -> dict[str, Any]:
    """Return an answer as JSON has it, without bytes."""
    return {name: value for name, value in asdict(answer).items() if not isinstance(value, bytes)}


@dataclass(frozen=True)
class Clip:
    """One clip."""

    prompt: str
    variation: int
    """Of its prompt, from 0."""
    audio: bytes = field(repr=False)
    """The file."""
    duration: float | None = None
    """Seconds, as `sample_rate` and `channels` told only where the answer does."""
    sample_rate: int | None = None
    channels: int | None = None
    codes: list[list[int]] | None = field(default=None, repr=False)
    """[codebooks][frames], where they were asked for."""

    def save(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_bytes(self.audio)


@dataclass(frozen=True)
class Generation:
    """What was asked for, made."""

    clips: list[Clip]
    """Prompt by prompt, and of each its variations."""
    model: str
    seed: int
    """Makes the same clips again."""
    format: str
    request_id: str | None = None
    quality: str | None = None
    """The tier, where `quality` was asked for."""
    cache: str | None = None
    """`hit` or `joined`: made for an earlier request. Told with a seed."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """By stage, where the answer tells."""

    @property
    def clip(self) -> Clip:
        """The only clip. Raises ValueError where there are several."""
        if len(self.clips) != 1:
            raise ValueError(f"there are {len(self.clips)} clips; take them from `clips`")
        return self.clips[0]

    @property
    def audio(self) -> bytes:
        """The only clip's file."""
        return self.clip.audio

    def save(self, path: str | Path) -> None:
        """Write the only clip's file."""
        self.clip.save(path)


@dataclass(frozen=True)
class Progress:
    """How far a clip is."""

    clip: int
    """Its place among those asked for, from 0."""
    stage: str
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""
    done: int
    total: int


@dataclass(frozen=True)
class AudioPart:
    """The next bytes of a clip's file; all of a clip's, joined, are its file."""

    clip: int
    audio: bytes = field(repr=False)


@dataclass(frozen=True)
class Done(Generic[T]):
    """The last event."""

    result: T


@dataclass(frozen=True)
class Streaming(Generic[Parts]):
    """A clip's file while it is made."""

    parts: Parts
    """Iterates over the file's bytes, as they are made."""
    model: str
    seed: int
    format: str
    request_id: str | None


@dataclass(frozen=True)
class Codes:
    """A file's codes."""

    model: str
    codes: list[list[int]] = field(repr=False)
    """[codebooks][frames]."""
    codebooks: int
    frames: int
    frame_rate: float
    """Frames a second."""
    sample_rate: int
    channels: int
    samples: int
    """A channel; decoding gives so many back."""


@dataclass(frozen=True)
class Analysis:
    """What the discriminators say of a file."""

    model: str
    is_real: bool
    """Whether the mean score is above the threshold."""
    probability: float | None
    """The figure to trust: that it is real, calibrated. None: not calibrated."""
    mpd_score: float
    msd_score: float
    msstftd_score: float
    threshold: float
    scales: Mapping[str, list[float]]
    """The mean logit of each sub-discriminator."""
    feature_maps: list[list[float]] = field(repr=False)
    """One list a layer: the mean absolute activation of each channel."""


@dataclass(frozen=True)
class Model:
    """A model of the server's."""

    id: str
    kind: str
    """`musicgen`, `audiogen`, `encodec`, `mbd` or `discriminators`."""
    license: str | None
    """Of its weights."""
    owned_by: str
    created: int
    """Unix seconds since which the server has it."""


@dataclass(frozen=True)
class Limits:
    """What this key may ask for."""

    max_duration_s: float
    max_text_chars: int
    max_clips: int
    max_body_bytes: int
    max_upload_bytes: int
    max_upload_s: float
    max_upload_channels: int
    max_wait_s: float
    max_jobs: int
    max_jobs_per_key: int
    keep_jobs_s: float
    key: Mapping[str, Any]
    """The key's name, and its own limits."""


@dataclass(frozen=True)
class Stats:
    """What the server is doing."""

    uptime_s: int
    deployments: Mapping[str, str]
    models: Mapping[str, Mapping[str, float]]
    """What one replica of each is doing."""
    backlog: Mapping[str, Mapping[str, Any]]
    """Of each model: `row_seconds` and `requests` outstanding, and its speed."""


@dataclass(frozen=True)
class Job:
    """A generation that nobody waits for at the other end of a connection."""

    id: str
    status: JobStatus
    model: str
    seed: int
    position: int
    """Among those that wait, from 1; 0: it waits no longer."""
    eta_seconds: float | None
    """Until it has ended; None: not known now."""
    progress: float
    """From 0 to 1."""
    created: float
    """Unix seconds, as all times here."""
    started: float | None
    ended: float | None
    expires: float
    error: Mapping[str, Any] | None
    """Its `message` and `code`, where it failed."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in ("finished", "failed", "cancelled")
