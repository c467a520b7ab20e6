"""Server-sent events (WHATWG HTML, 9.2), as the server sends them."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from audiocraft_serve.answers import AudioPart, Done, from_json
from audiocraft_serve.errors import CutOff, UnexpectedAnswer, api_error

T = TypeVar("T")
P = TypeVar("P")
Finish = Callable[[Mapping[str, Any], Mapping[int, bytes]], T]
"""Makes the result of the last event and of each clip's bytes."""


class EventReader(Generic[P, T]):
    """Turns an answer's bytes, however they are cut, into events; the last is `Done`."""

    def __init__(self, progress: type[P], finish: Finish[T]) -> None:
        self._progress, self._finish = progress, finish
        self._line = bytearray()
        self._name, self._data = "", list[str]()
        self._audio: dict[int, list[bytes]] = {}
        self._done = False

    def feed(self, part: bytes) -> Iterator[P | AudioPart | Done[T]]:
        """Yield the events that are whole by now. Raises ApiError where one is an error."""
        *lines, rest = part.split(b"\n")
        for line in lines:
            whole, self._line = bytes(self._line + line), bytearray()
            event = self._take(whole.removesuffix(b"\r").decode())
            if event:
                yield event
        self._line += rest

    def end(self) -> None:
        """Raise CutOff where the last event never came."""
        if not self._done:
            raise CutOff("the answer ended before its last event")

    def _take(self, line: str) -> P | AudioPart | Done[T] | None:
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
            return self._event(name, json.loads(data))
        except (ValueError, KeyError) as error:
            raise UnexpectedAnswer(f"an event {name!r} that cannot be read") from error

    def _event(self, name: str, data: dict[str, Any]) -> P | AudioPart | Done[T] | None:
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
                return Done(self._finish(data, joined))
            case "error":
                raise api_error(None, data)
            case _:  # of a later server
                return None
