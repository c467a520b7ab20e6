"""Converts the events of any task to messages and answers."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.audio.credentials import Signer
from api.audio.encoder import Audio
from api.audio.file import build_file, finish_clip
from api.audio.output import Output
from api.audio.tags import Tags
from api.respond.embedded_files import EmbeddedFiles
from graph.cache import AnswerParts
from graph.tasks.task import Event, Progress, Result, Task
from graph.workflows.levels import Samples

JSON = "application/json"


class ProgressEvent(BaseModel):
    """The progress of a clip."""

    clip: int
    """The index of the clip in the request, from 0."""
    stage: str
    done: int
    total: int
    """`generate` counts frames of codes, `decode` evaluations of a diffusion model."""


class FileAnswer(BaseModel):
    """One file that is sent as an event."""

    model: str
    seed: int | None = None
    format: str
    duration: float
    """Seconds."""
    sample_rate: int
    channels: int
    audio: str
    """The file, in base64."""


@dataclass(kw_only=True)
class Rendering(ABC):
    """Builds the answer of one request."""

    task: Task
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that the route adds."""
    leaves_out_null: bool = True
    """Whether JSON leaves out fields that are null."""
    embedded: EmbeddedFiles = field(default_factory=EmbeddedFiles)
    """The files of which JSON contains the marks."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every answer to the request."""
        seed = {} if self.task.seed is None else {"x-seed": str(self.task.seed)}
        return {**seed, "x-model": self.task.model, **self.extra_headers}

    def content(self) -> Hashable:
        """Return what identifies the answer, except the task."""
        return tuple(sorted(self.extra_headers.items()))

    def build_key(self) -> str:
        """Return a hash that identifies the answer. Call it on a thread."""
        whole = self.task.key(), type(self).__name__, self.content()
        return sha256(repr(whole).encode()).hexdigest()

    def count_answer_bytes(self) -> int:
        """Return the bytes of the answer's files, at most; JSON without files is not counted."""
        return 0

    def count_bytes(self) -> int:
        """Return how many bytes the ingress holds for the request, at most."""
        return self.task.count_bytes() + self.count_answer_bytes()

    @abstractmethod
    def describe_result(self, result: Result) -> BaseModel:
        """Return the result as JSON describes it, with marks for files. Call it on a thread."""

    def render(self, result: Result) -> AnswerParts:
        """Return the answer, whose files are made while it is read. Call it on a thread."""
        text = self._dump_json(self.describe_result(result))
        return AnswerParts(self.embedded.write_text(text), JSON, self.headers)

    def describe_progress(self, event: Progress) -> BaseModel:
        """Return a progress event's data."""
        return ProgressEvent(clip=event.clip, stage=event.stage, done=event.done, total=event.total)

    def build_messages(self, event: Event) -> list[tuple[str, BaseModel]]:
        """Return the messages that an event becomes, by name. Call it on a thread."""
        if isinstance(event, Progress):
            return [("progress", self.describe_progress(event))]
        if isinstance(event, Result):
            return [("done", self.describe_result(event))]
        return []

    def format_message(self, name: str, message: BaseModel) -> Iterator[bytes]:
        """Yield the parts of a server-sent event (WHATWG HTML, 9.2). Read them on a thread."""
        event = format_sse_event(data_str=self._dump_json(message), event=name)
        yield from self.embedded.write_text(event.decode())

    def _dump_json(self, model: BaseModel) -> str:
        return model.model_dump_json(exclude_none=self.leaves_out_null)


@dataclass(kw_only=True)
class FileMaker:
    """Builds whole files, and signs them if a key is configured."""

    output: Output
    signer: Signer | None

    @property
    def headers(self) -> dict[str, str]:
        """The header that says that files are signed, or no header."""
        signed = self.signer and self.signer.supports(self.output)
        return {"x-content-credentials": "signed"} if signed else {}

    def build_clip(self, samples: Samples, rate: int, tags: Tags | None) -> Iterator[bytes]:
        """Yield the parts of the file of a clip, whose level and edges are set before.

        Raises ApiError 503 if it cannot be signed now.
        """
        finished = finish_clip(samples, rate, self.output)
        return self.build_file(Audio.of_one_block(finished, rate), tags)

    def build_file(self, audio: Audio, tags: Tags | None) -> Iterator[bytes]:
        """Yield the parts of a file. Raises ApiError 503 if it cannot be signed now."""
        return build_file(audio, self.output, tags, self.signer)

    def count_bytes(self, audio_bytes: int, rate: int) -> int:
        """Return the bytes of the file of float32 samples at a rate in Hz, at most."""
        width = {"s16": 2, "s24": 3, "f32": 4}[self.output.sample_format]
        return audio_bytes * self.output.rate_for(rate) * width // (4 * rate)
