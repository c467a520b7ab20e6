"""Defines an API call: the HTTP request to send and the function that reads its response."""

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
    build_api_error,
)
from audiocraft_serve.events import BuildResult, EventReader
from audiocraft_serve.parameters import File

T = TypeVar("T")
P = TypeVar("P")
ACCEPT_EVENTS = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class ApiCall(Generic[T]):
    """A request to the server, and the function that reads its response."""

    method: str
    path: str
    read_response: Callable[[httpx.Response], T]
    json: Any = None
    fields: Mapping[str, Any] | None = None
    """Fields of a form, which is sent in place of `json`."""
    files: Mapping[str, bytes] | None = None
    """Files of the form, by field name."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def build_request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the HTTP request for the given HTTP client."""
        files = {name: (name, data) for name, data in (self.files or {}).items()}
        return http.build_request(
            self.method,
            self.path,
            json=self.json,
            data=encode_form(self.fields) if self.fields is not None else None,
            files=files or None,
            headers=dict(self.headers),
        )


def encode_form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the fields of a form to text, and leave out those that are None."""

    def encode_value(value: Any) -> str:
        return json.dumps(value) if isinstance(value, bool | int | float) else str(value)

    return {
        name: [encode_value(one) for one in value]
        if isinstance(value, list)
        else encode_value(value)
        for name, value in fields.items()
        if value is not None
    }


@contextmanager
def convert_http_errors() -> Iterator[None]:
    """Raise httpx's connection errors as NotReachable, TimedOut or CutOff."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        address = error.request.url.copy_with(path="/", query=None)
        reason = str(error) or "no answer to the attempt to connect"
        raise NotReachable(f"{address} cannot be reached: {reason}") from error
    except httpx.TimeoutException as error:
        raise TimedOut(
            "the server sent no data in time; a larger `timeout` waits longer"
        ) from error
    except httpx.TransportError as error:
        raise CutOff(f"the connection broke: {error}") from error


def read_error(response: httpx.Response) -> AudiocraftError:
    """Build the error of a response with an error status, whose body has been read."""
    try:
        body = response.json()
    except ValueError:  # a proxy between client and server sent it
        body = None
    after = response.headers.get("retry-after", "")
    seconds = float(after) if after.isdecimal() else None  # the server never sends a date
    return build_api_error(
        response.status_code, body, response.headers.get("x-request-id"), seconds
    )


def read_json(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of a response. Raises UnexpectedAnswer if it has none."""
    with suppress(ValueError):
        found = response.json()
        if isinstance(found, dict):
            return found
    kind = response.headers.get("content-type", "no content type")
    message = f"{response.url} answered with no JSON object ({kind}); is it this API's server?"
    raise UnexpectedAnswer(message)


def read_bytes(response: httpx.Response) -> bytes:
    """Return the body of a response."""
    return response.content


def read_file(file: File) -> bytes:
    """Return the bytes of a file that is given as bytes or as a path. Raises OSError."""
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def build_answer_reader(cls: type[T]) -> Callable[[httpx.Response], T]:
    """Return a function that reads a JSON response into the given dataclass."""
    return lambda response: from_json(cls, read_json(response))


def build_event_reader(
    response: httpx.Response, progress: type[P], build_result: BuildResult[T]
) -> EventReader[P, T]:
    """Return a reader of a response's events. Raises UnexpectedAnswer if it is not an event stream.

    `progress` is the dataclass of `progress` events; `build_result` builds the final result.
    """
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise UnexpectedAnswer(f"{response.url} answered with {kind!r}, not with events")
    return EventReader(progress, build_result)


def read_headers(response: httpx.Response) -> dict[str, str | None]:
    """Return the request id, the cache state and the quality tier that the headers give."""
    names = {"request_id": "x-request-id", "cache": "x-cache", "quality": "x-quality"}
    return {name: response.headers.get(header) for name, header in names.items()}
