"""Songs, podcasts, ambiences and style transfers: what they answer, and their requests."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from audiocraft_serve.answers import from_json
from audiocraft_serve.call import EVENTS, Call, bytes_of, events_of, json_of, told_by
from audiocraft_serve.events import EventReader
from audiocraft_serve.parameters import (
    AmbienceParameters,
    File,
    PodcastParameters,
    SectionParameters,
    SongParameters,
    StyleParameters,
)

PATH = "/v1/workflows"


@dataclass(frozen=True)
class Track:
    """Audio, and where it lies in the mix."""

    name: str
    duration: float
    """Seconds."""
    audio: bytes = field(repr=False)
    """The file."""
    start: float | None = None
    """Seconds; None: it is not in the mix."""

    def save(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_bytes(self.audio)


@dataclass(frozen=True)
class Timing:
    """A section of a song, or a passage of a podcast, in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Production:
    """A mix, and what it is made of."""

    mix: Track
    stems: list[Track]
    """Those with a start add up to the mix; none where it has but one part."""
    timing: list[Timing]
    model: str
    seed: int
    format: str
    sample_rate: int
    channels: int
    duration: float
    """Of the mix, in seconds."""
    loudness: float | None = None
    """Of the mix, in LUFS; None where it is too quiet to have one."""
    distribution: Track | None = None
    """Where it was asked for."""
    request_id: str | None = None
    cache: str | None = None
    """`hit` or `joined`: made for an earlier request. Told with a seed."""

    def save(self, path: str | Path) -> None:
        """Write the mix's file."""
        self.mix.save(path)


@dataclass(frozen=True)
class WorkflowProgress:
    """How far a part is, and all of them."""

    part: str
    stage: str
    done: int
    total: int
    progress: float
    """From 0 to 1, of all."""


@dataclass(frozen=True)
class Workflow:
    """A workflow that can be asked for: whole, or told by events."""

    path: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes] | None = None

    def whole(self) -> Call[Production]:
        """Return the call that waits in silence."""
        return self._posted(lambda answer: _production(json_of(answer), told_by(answer)), {})

    def events(self) -> Call[EventReader[WorkflowProgress, Production]]:
        """Return the call that is told how far it is."""

        def reader(response: httpx.Response) -> EventReader[WorkflowProgress, Production]:
            told = told_by(response)
            return events_of(response, WorkflowProgress, lambda data, _: _production(data, told))

        return self._posted(reader, EVENTS)

    def _posted(self, read: Any, headers: Mapping[str, str]) -> Call[Any]:
        if self.files:
            return Call("POST", self.path, read, None, self.fields, self.files, headers)
        return Call("POST", self.path, read, json=self.fields, headers=headers)


def _production(data: Mapping[str, Any], told: Mapping[str, Any]) -> Production:
    distribution = data.get("distribution")
    return from_json(
        Production,
        data,
        mix=_track(data.get("mix", {})),
        stems=[_track(stem) for stem in data.get("stems", ())],
        timing=[from_json(Timing, one) for one in data.get("timing", ())],
        distribution=_track(distribution) if distribution else None,
        request_id=told["request_id"],
        cache=told["cache"],
    )


def _track(data: Mapping[str, Any]) -> Track:
    return from_json(Track, data, audio=base64.b64decode(data.get("audio", "")))


def song(sections: Sequence[SectionParameters], parameters: SongParameters) -> Workflow:
    """Sections that go on from each other."""
    return Workflow(f"{PATH}/song", {"sections": list(sections), **parameters})


def podcast(theme: str, parameters: PodcastParameters) -> Workflow:
    """The music of a podcast, perhaps under its voice."""
    fields: dict[str, Any] = {"theme": theme, **parameters}
    voice = fields.pop("voice", None)
    files = None if voice is None else {"voice": bytes_of(voice)}
    return Workflow(f"{PATH}/podcast", fields, files)


def ambience(parameters: AmbienceParameters) -> Workflow:
    """A loop without a seam."""
    return Workflow(f"{PATH}/ambience", {**parameters})


def style_transfer(content: File, style: str, parameters: StyleParameters) -> Workflow:
    """A file's melody in another style."""
    files = {"content": bytes_of(content)}
    return Workflow(f"{PATH}/style-transfer", {"style": style, **parameters}, files)
