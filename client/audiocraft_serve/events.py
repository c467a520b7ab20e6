"""Parses the server-sent events of a response (WHATWG HTML, section 9.2)."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from audiocraft_serve.answers import AudioPart, Done, from_json
from audiocraft_serve.errors import CutOff, UnexpectedAnswer, build_api_error

T = TypeVar("T")
P = TypeVar("P")
BuildResult = Callable[[Mapping[str, Any], Mapping[int, bytes]], T]
"""Builds the result from the data of the `done` event and the audio of each clip, by number."""


class EventReader(Generic[P, T]):
    """Parses a response's bytes, which may be split anywhere, into events; the last is `Done`."""

    def __init__(self, progress: type[P], build_result: BuildResult[T]) -> None:
        self._progress, self._build_result = progress, build_result
        self._line = bytearray()
        self._name, self._data = "", list[str]()
        self._audio: dict[int, list[bytes]] = {}
        self._done = False

    def feed(self, part: bytes) -> Iterator[P | AudioPart | Done[T]]:
        """Yield the events that these bytes complete. Raises ApiError for an `error` event."""
        *lines, rest = part.split(b"\n")
        for line in lines:
            whole, self._line = bytes(self._line + line), bytearray()
            event = self._parse_line(whole.removesuffix(b"\r").decode())
            if event:
                yield event
        self._line += rest

    def check_complete(self) -> None:
        """Raise CutOff if the response ended before its `done` event."""
        if not self._done:
            raise CutOff("the response ended before its last event")

    def _parse_line(self, line: str) -> P | AudioPart | Done[T] | None:
        """Parse one line; return the event if the line is the empty one that ends it."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        if line or not self._data:
            return None
        name, data = self._name, "\n".join(self._data)
        self._name, self._data = "", []
        try:
            return self._build_event(name, json.loads(data))
        except (ValueError, KeyError) as error:
            raise UnexpectedAnswer(f"the event {name!r} cannot be read") from error

    def _build_event(self, name: str, data: dict[str, Any]) -> P | AudioPart | Done[T] | None:
        match name:
            case "progress":
                return from_json(self._progress, data)
            case "audio":
                part = AudioPart(data["clip"], base64.b64decode(data["audio"], validate=True))
                self._audio.setdefault(part.clip, []).append(part.audio)
                return part
            case "done":
                self._done = True
                joined = {clip: b"".join(parts) for clip, parts in self._audio.items()}
                return Done(self._build_result(data, joined))
            case "error":
                raise build_api_error(None, data)
            case _:  # an event that a newer server sends
                return None
