"""Defines the dataclasses that the client's methods return."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from audiocraft_serve.errors import UnexpectedAnswer

T = TypeVar("T")
Parts = TypeVar("Parts")
JobStatus = Literal["queued", "running", "finished", "failed", "cancelled"]


def from_json(cls: type[T], data: Mapping[str, Any], **more: Any) -> T:
    """Build a dataclass from a JSON object; fields that it does not define are ignored.

    Raises UnexpectedAnswer if a required field is missing.
    """
    names = {one.name for one in fields(cls)}  # type: ignore[arg-type]
    try:
        return cls(**{name: data[name] for name in names & data.keys()} | more)
    except TypeError as error:
        raise UnexpectedAnswer(f"{cls.__name__}: the server's answer lacks fields") from error


def to_json(answer: Any) -> dict[str, Any]:
    """Return an answer's fields as a JSON object, without those that are bytes."""
    return {name: value for name, value in asdict(answer).items() if not isinstance(value, bytes)}


@dataclass(frozen=True)
class Clip:
    """One generated piece of audio."""

    prompt: str
    variation: int
    """Number of the variation of its prompt, from 0."""
    audio: bytes = field(repr=False)
    """The bytes of the audio file."""
    duration: float | None = None
    """Length in seconds; None, as `sample_rate` and `channels`, if the server sent no JSON."""
    sample_rate: int | None = None
    channels: int | None = None
    codes: list[list[int]] | None = field(default=None, repr=False)
    """Codes as [codebooks][frames], if `return_codes` was set."""

    def save(self, path: str | Path) -> None:
        """Write the audio file to `path`."""
        Path(path).write_bytes(self.audio)


@dataclass(frozen=True)
class Generation:
    """The result of a generation: one clip, or several."""

    clips: list[Clip]
    """Clips ordered by prompt, then by variation."""
    model: str
    seed: int
    """A request with the same seed and parameters gives the same clips."""
    format: str
    request_id: str | None = None
    quality: str | None = None
    """The quality tier that was used, if `quality` was given."""
    cache: str | None = None
    """`hit` or `joined`: the result of an earlier request. Only set if a seed was given."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Duration of each stage in milliseconds; empty if the server does not report it."""

    @property
    def clip(self) -> Clip:
        """The clip of a generation with one clip. Raises ValueError if there are several."""
        if len(self.clips) != 1:
            raise ValueError(f"there are {len(self.clips)} clips; take them from `clips`")
        return self.clips[0]

    @property
    def audio(self) -> bytes:
        """The audio file of a generation with one clip. Raises ValueError if there are several."""
        return self.clip.audio

    def save(self, path: str | Path) -> None:
        """Write the file of a single clip to `path`. Raises ValueError if there are several."""
        self.clip.save(path)


@dataclass(frozen=True)
class Progress:
    """Progress of one clip."""

    clip: int
    """Index of the clip in the request, from 0."""
    stage: str
    """`generate`, counted in frames of codes, or `decode`, counted in diffusion model steps."""
    done: int
    total: int


@dataclass(frozen=True)
class AudioPart:
    """The next bytes of a clip's file; the parts of a clip, joined in order, are its file."""

    clip: int
    audio: bytes = field(repr=False)


@dataclass(frozen=True)
class Done(Generic[T]):
    """The last event of a response, with the result."""

    result: T


@dataclass(frozen=True)
class Streaming(Generic[Parts]):
    """A clip whose file is received while it is generated."""

    parts: Parts
    """Iterator over the bytes of the file, in order."""
    model: str
    seed: int
    format: str
    request_id: str | None


@dataclass(frozen=True)
class Codes:
    """The EnCodec codes of an audio file."""

    model: str
    codes: list[list[int]] = field(repr=False)
    """Codes as [codebooks][frames]."""
    codebooks: int
    frames: int
    frame_rate: float
    """Frames per second."""
    sample_rate: int
    channels: int
    samples: int
    """Samples per channel; the decoded audio has the same number."""


@dataclass(frozen=True)
class Analysis:
    """The discriminators' scores of an audio file."""

    model: str
    is_real: bool
    """Whether the mean of the three scores is above the threshold."""
    probability: float | None
    """Calibrated probability that the audio is real; None: the model is not calibrated."""
    mpd_score: float
    msd_score: float
    msstftd_score: float
    threshold: float
    scales: Mapping[str, list[float]]
    """Mean logit of each sub-discriminator, by discriminator."""
    feature_maps: list[list[float]] = field(repr=False)
    """Mean absolute activation of each channel, one list per layer."""


@dataclass(frozen=True)
class Model:
    """A model that the server offers."""

    id: str
    kind: str
    """`musicgen`, `audiogen`, `encodec`, `mbd` or `discriminators`."""
    role: str | None
    """What a language model makes, `music` or `sound`; None for other models."""
    license: str | None
    """License of the model's weights."""
    owned_by: str
    created: int
    """Unix time in seconds at which the server added the model."""


@dataclass(frozen=True)
class Limits:
    """The limits that apply to the client's API key."""

    max_duration_s: float
    max_text_chars: int
    max_clips: int
    max_body_bytes: int
    max_upload_bytes: int
    max_upload_s: float
    max_upload_channels: int
    max_held_bytes: int
    max_wait_s: float
    max_jobs: int
    max_jobs_per_key: int
    keep_jobs_s: float
    formats: Mapping[str, Mapping[str, Any]]
    """The file formats, with the sample formats, sample rates and bit rates of each."""
    key: Mapping[str, Any]
    """Name of the API key, and the limits that apply only to it."""


@dataclass(frozen=True)
class Stats:
    """The server's current load."""

    uptime_s: int
    deployments: Mapping[str, str]
    models: Mapping[str, Mapping[str, float]]
    """Load of one replica of each model."""
    backlog: Mapping[str, Mapping[str, Any]]
    """Outstanding `row_seconds` and `requests` of each model, and the model's speed."""


@dataclass(frozen=True)
class Job:
    """A generation that runs without an open connection; its result is fetched later."""

    id: str
    status: JobStatus
    model: str
    seed: int
    position: int
    """Position in the queue, from 1; 0: the job has left the queue."""
    eta_seconds: float | None
    """Estimated seconds until the job ends; None: unknown."""
    progress: float
    """Progress from 0 to 1."""
    created: float
    """Unix time in seconds, as are `started`, `ended` and `expires`."""
    started: float | None
    ended: float | None
    expires: float
    error: Mapping[str, Any] | None
    """`message` and `code` of the error, if the job failed."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has finished, failed or was cancelled."""
        return self.status in ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class JobPage:
    """A page of the jobs of the client's API key, the newest first."""

    jobs: tuple[Job, ...]
    next_cursor: str | None
    """The cursor of the next page; None: this is the last one."""
