"""Defines the workflows (song, podcast, ambience, style transfer): their calls and answers."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from audiocraft_serve.answers import from_json
from audiocraft_serve.api_call import (
    ACCEPT_EVENTS,
    ApiCall,
    build_event_reader,
    read_file,
    read_headers,
    read_json,
)
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
    """An audio file, and its position in the mix."""

    name: str
    duration: float
    """Seconds."""
    audio: bytes = field(repr=False)
    """The bytes of the file."""
    start: float | None = None
    """Start in the mix, in seconds; None: the track is not part of the mix."""

    def save(self, path: str | Path) -> None:
        """Write the audio file to `path`."""
        Path(path).write_bytes(self.audio)


@dataclass(frozen=True)
class Timing:
    """Start and end, in seconds, of a song's section or a podcast's passage."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Production:
    """The result of a workflow: a mix and its stems."""

    mix: Track
    stems: list[Track]
    """The stems with a `start` add up to the mix; empty if the mix has only one part."""
    timing: list[Timing]
    model: str
    seed: int
    format: str
    sample_rate: int
    channels: int
    duration: float
    """Length of the mix in seconds."""
    loudness: float | None = None
    """Loudness of the mix in LUFS; None if the mix is too quiet to be measured."""
    distribution: Track | None = None
    """The second mix, if `distribution` was requested."""
    request_id: str | None = None
    cache: str | None = None
    """`hit` or `joined`: the result of an earlier request. Only set if a seed was given."""

    def save(self, path: str | Path) -> None:
        """Write the mix to `path`."""
        self.mix.save(path)


@dataclass(frozen=True)
class WorkflowProgress:
    """Progress of one part of a workflow, and of the whole."""

    part: str
    stage: str
    done: int
    total: int
    progress: float
    """Progress of the whole workflow, from 0 to 1."""


@dataclass(frozen=True)
class Workflow:
    """A workflow request, from which a call with or without progress events is prepared."""

    path: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes] | None = None

    def prepare_call(self) -> ApiCall[Production]:
        """Return the call that is answered once the mix is complete."""
        return self._prepare_post(
            lambda response: _build_production(read_json(response), read_headers(response)), {}
        )

    def prepare_events(self) -> ApiCall[EventReader[WorkflowProgress, Production]]:
        """Return the call that is answered with progress events."""

        def read_response(response: httpx.Response) -> EventReader[WorkflowProgress, Production]:
            headers = read_headers(response)
            return build_event_reader(
                response, WorkflowProgress, lambda data, _: _build_production(data, headers)
            )

        return self._prepare_post(read_response, ACCEPT_EVENTS)

    def _prepare_post(self, read_response: Any, headers: Mapping[str, str]) -> ApiCall[Any]:
        if self.files:
            return ApiCall("POST", self.path, read_response, None, self.fields, self.files, headers)
        return ApiCall("POST", self.path, read_response, json=self.fields, headers=headers)


def _build_production(data: Mapping[str, Any], headers: Mapping[str, Any]) -> Production:
    distribution = data.get("distribution")
    return from_json(
        Production,
        data,
        mix=_build_track(data.get("mix", {})),
        stems=[_build_track(stem) for stem in data.get("stems", ())],
        timing=[from_json(Timing, one) for one in data.get("timing", ())],
        distribution=_build_track(distribution) if distribution else None,
        request_id=headers["request_id"],
        cache=headers["cache"],
    )


def _build_track(data: Mapping[str, Any]) -> Track:
    return from_json(Track, data, audio=base64.b64decode(data.get("audio", "")))


def build_song(sections: Sequence[SectionParameters], parameters: SongParameters) -> Workflow:
    """Build the request for a song in which each section continues the one before."""
    return Workflow(f"{PATH}/song", {"sections": list(sections), **parameters})


def build_podcast(theme: str, parameters: PodcastParameters) -> Workflow:
    """Build the request for a podcast's music, mixed with its voice if one is given."""
    fields: dict[str, Any] = {"theme": theme, **parameters}
    voice = fields.pop("voice", None)
    files = None if voice is None else {"voice": read_file(voice)}
    return Workflow(f"{PATH}/podcast", fields, files)


def build_ambience(parameters: AmbienceParameters) -> Workflow:
    """Build the request for an ambience, a seamless loop."""
    return Workflow(f"{PATH}/ambience", {**parameters})


def build_style_transfer(content: File, style: str, parameters: StyleParameters) -> Workflow:
    """Build the request for a file's melody in another style."""
    files = {"content": read_file(content)}
    return Workflow(f"{PATH}/style-transfer", {"style": style, **parameters}, files)
