"""A request and how its answer is read, without the sending; and what goes wrong on the way."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx

from audiocraft_serve.answers import from_json
from audiocraft_serve.errors import (
    AudiocraftError,
    CutOff,
    NotReachable,
    TimedOut,
    UnexpectedAnswer,
    api_error,
)
from audiocraft_serve.events import EventReader, Finish
from audiocraft_serve.parameters import File

T = TypeVar("T")
P = TypeVar("P")
EVENTS = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what reads its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Any = None
    fields: Mapping[str, Any] | None = None
    """Of a form, with `files`."""
    files: Mapping[str, bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def built(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the request, as either client sends it."""
        files = {name: (name, data) for name, data in (self.files or {}).items()}
        return http.build_request(
            self.method,
            self.path,
            json=self.json,
            data=form(self.fields) if self.fields is not None else None,
            files=files or None,
            headers=dict(self.headers),
        )


def form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as a form has them: texts, and none where nothing is said."""

    def text(value: Any) -> str:
        return json.dumps(value) if isinstance(value, bool | int | float) else str(value)

    return {
        name: [text(one) for one in value] if isinstance(value, list) else text(value)
        for name, value in fields.items()
        if value is not None
    }


@contextmanager
def told() -> Iterator[None]:
    """Raise errors of the connection as ours."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        address = error.request.url.copy_with(path="/", query=None)
        reason = str(error) or "no answer to the attempt to connect"
        raise NotReachable(f"{address} cannot be reached: {reason}") from error
    except httpx.TimeoutException as error:
        raise TimedOut("nothing came from the server for too long") from error
    except httpx.TransportError as error:
        raise CutOff(f"the connection broke: {error}") from error


def failure(response: httpx.Response) -> AudiocraftError:
    """Return the error that an answer, read already, is."""
    try:
        body = response.json()
    except ValueError:  # of a proxy on the way
        body = None
    after = response.headers.get("retry-after", "")
    seconds = float(after) if after.isdecimal() else None  # else a date, which ours never sends
    return api_error(response.status_code, body, response.headers.get("x-request-id"), seconds)


def json_of(response: httpx.Response) -> dict[str, Any]:
    """Return an answer's JSON object. Raises UnexpectedAnswer."""
    with suppress(ValueError):
        found = response.json()
        if isinstance(found, dict):
            return found
    kind = response.headers.get("content-type", "nothing said of its type")
    message = f"{response.url} answered with no JSON object ({kind}); is it this API's server?"
    raise UnexpectedAnswer(message)


def bytes_of(file: File) -> bytes:
    """Return a file's bytes. Raises OSError."""
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def as_read(cls: type[T]) -> Callable[[httpx.Response], T]:
    """Return what reads an answer with the fields of a dataclass."""
    return lambda response: from_json(cls, json_of(response))


def events_of(response: httpx.Response, progress: type[P], finish: Finish[T]) -> EventReader[P, T]:
    """Return what reads an answer's events. Raises UnexpectedAnswer where it has none."""
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise UnexpectedAnswer(f"{response.url} answered with {kind!r}, not with events")
    return EventReader(progress, finish)


def told_by(response: httpx.Response) -> dict[str, str | None]:
    """Return what headers say of any answer."""
    names = {"request_id": "x-request-id", "cache": "x-cache", "quality": "x-quality"}
    return {name: response.headers.get(header) for name, header in names.items()}
