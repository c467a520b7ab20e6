"""Every request and how its answer is read, without the sending: both clients share it."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote
from uuid import uuid4

import httpx

from audiocraft_serve.answers import (
    Analysis,
    Clip,
    Codes,
    Generation,
    Job,
    Limits,
    Model,
    Stats,
    Streaming,
    from_json,
)
from audiocraft_serve.errors import (
    AudiocraftError,
    CutOff,
    NotReachable,
    TimedOut,
    UnexpectedAnswer,
    api_error,
)
from audiocraft_serve.events import EventReader
from audiocraft_serve.parameters import FILES, File, GenerationParameters, StreamParameters

T = TypeVar("T")
Parts = TypeVar("Parts")
GENERATIONS, JOBS = "/v1/generations", "/v1/jobs"
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
            data=_form(self.fields) if self.fields is not None else None,
            files=files or None,
            headers=dict(self.headers),
        )


def _form(fields: Mapping[str, Any]) -> dict[str, Any]:
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


def json_of(response: httpx.Response) -> Any:
    """Return an answer's JSON. Raises UnexpectedAnswer."""
    try:
        return response.json()
    except ValueError as error:
        kind = response.headers.get("content-type", "nothing said of its type")
        message = f"{response.url} answered with no JSON ({kind}); is it this API's server?"
        raise UnexpectedAnswer(message) from error


def bytes_of(file: File) -> bytes:
    """Return a file's bytes. Raises OSError."""
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def as_read(cls: type[T]) -> Callable[[httpx.Response], T]:
    """Return what reads an answer with the fields of a dataclass."""
    return lambda response: from_json(cls, json_of(response))


def _once() -> dict[str, str]:
    return {"idempotency-key": uuid4().hex}


def _posted(
    path: str,
    read: Callable[[httpx.Response], T],
    body: Mapping[str, Any],
    headers: Mapping[str, str],
) -> Call[T]:
    """Return a call whose body is JSON, or a form where files come along."""
    fields = {name: value for name, value in body.items() if name not in FILES}
    files = {name: bytes_of(body[name]) for name in FILES if name in body}
    if files:
        return Call("POST", path, read, fields=fields, files=files, headers=headers)
    return Call("POST", path, read, json=fields, headers=headers)


def _body(prompt: str | Sequence[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    return given | ({"prompt": prompt} if isinstance(prompt, str) else {"prompts": list(prompt)})


def generate(prompt: str | Sequence[str], parameters: GenerationParameters) -> Call[Generation]:
    """Make clips, once, however often it is asked for again."""
    body = _body(prompt, parameters)
    return _posted(GENERATIONS, lambda answer: _generation(answer, body), body, _once())


def events(
    prompt: str | Sequence[str], parameters: GenerationParameters, *, stream: bool
) -> Call[EventReader[Generation]]:
    """Make clips, told by events. Who leaves stops the work, so none has a key to be made once."""
    body = _body(prompt, parameters) | {"stream": stream}

    def reader(response: httpx.Response) -> EventReader[Generation]:
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise UnexpectedAnswer(f"{response.url} answered with {kind!r}, not with events")
        name = response.headers.get("x-request-id")
        return EventReader(lambda data, audio: _of_clips(data, audio, request_id=name))

    return _posted(GENERATIONS, reader, body, EVENTS)


def stream(
    prompt: str, parameters: StreamParameters, parts: Callable[[httpx.Response], Parts]
) -> Call[Streaming[Parts]]:
    """Make a clip whose file is sent while it is made, and is read by `parts`."""
    body = _body(prompt, parameters) | {"stream": True}

    def read(response: httpx.Response) -> Streaming[Parts]:
        model, seed = _named(response)
        name = response.headers.get("x-request-id")
        return Streaming(parts(response), model, seed, body.get("format", "wav"), name)

    return _posted(GENERATIONS, read, body, {})


def _named(response: httpx.Response) -> tuple[str, int]:
    """Return an answer's model and seed, by its headers."""
    try:
        return response.headers["x-model"], int(response.headers["x-seed"])
    except (KeyError, ValueError) as error:
        message = f"{response.url} told neither model nor seed; is it this API's server?"
        raise UnexpectedAnswer(message) from error


def _generation(response: httpx.Response, body: Mapping[str, Any]) -> Generation:
    told: dict[str, Any] = {
        "request_id": response.headers.get("x-request-id"),
        "cache": response.headers.get("x-cache"),
    }
    if response.headers.get("content-type", "").startswith("application/json"):
        return _of_clips(json_of(response), {}, **told)
    model, seed = _named(response)
    clip = Clip(body.get("prompt") or body["prompts"][0], 0, response.content)
    times = _milliseconds(response.headers.get("server-timing", ""))
    return Generation([clip], model, seed, body.get("format", "wav"), milliseconds=times, **told)


def _of_clips(data: Mapping[str, Any], audio: Mapping[int, bytes], **told: Any) -> Generation:
    """Return what is told of clips, whose files came before by events, or are among it."""
    clips = [
        from_json(
            Clip,
            one,
            audio=audio[number] if number in audio else base64.b64decode(one.get("audio", "")),
        )
        for number, one in enumerate(data.get("clips", ()))
    ]
    return from_json(Generation, data, clips=clips, **told)


def _milliseconds(header: str) -> dict[str, float]:
    """Read `server-timing`, such as `generate;dur=81.5, total;dur=90.1`."""
    stages = (one.strip().partition(";dur=") for one in header.split(",") if ";dur=" in one)
    return {name: float(value) for name, _, value in stages}


def encode(
    file: File, codebooks: int | None, bandwidth: float | None, model: str | None
) -> Call[Codes]:
    """A file to codes."""
    fields = {"codebooks": codebooks, "bandwidth": bandwidth, "model": model}
    files = {"audio_file": bytes_of(file)}
    return Call("POST", "/v1/codec/encode", as_read(Codes), fields=fields, files=files)


def encode_file(
    file: File, codebooks: int | None, bandwidth: float | None, model: str | None
) -> Call[bytes]:
    """The same, to a safetensors file."""
    fields = {
        "codebooks": codebooks, "bandwidth": bandwidth, "model": model, "format": "safetensors",
    }  # fmt: skip
    files = {"audio_file": bytes_of(file)}
    return Call("POST", "/v1/codec/encode", _content, fields=fields, files=files)


def decode(codes: Codes | File, model: str | None) -> Call[bytes]:
    """Codes to a WAV file."""
    path = "/v1/codec/decode"
    if isinstance(codes, Codes):
        body = {"codes": codes.codes, "samples": codes.samples, "model": model or codes.model}
        return Call("POST", path, _content, json=body)
    files = {"codes_file": bytes_of(codes)}
    return Call("POST", path, _content, fields={"model": model}, files=files)


def analyze(file: File, threshold: float | None, model: str | None) -> Call[Analysis]:
    """How real a file sounds."""
    fields = {"threshold": threshold, "model": model}
    files = {"audio_file": bytes_of(file)}
    return Call("POST", "/analyze", as_read(Analysis), fields=fields, files=files)


def _content(response: httpx.Response) -> bytes:
    return response.content


def models() -> Call[list[Model]]:
    """Every model."""
    return Call("GET", "/v1/models", lambda answer: _listed(Model, json_of(answer), "data"))


def limits() -> Call[Limits]:
    """What this key may ask for."""
    return Call("GET", "/v1/limits", as_read(Limits))


def stats() -> Call[Stats]:
    """What the server is doing."""
    return Call("GET", "/v1/stats", as_read(Stats))


def submit_job(prompt: str | Sequence[str], parameters: Mapping[str, Any]) -> Call[Job]:
    """Have clips made when there is time, once, however often it is asked for again."""
    return _posted(JOBS, as_read(Job), _body(prompt, parameters), _once())


def submit_jobs(bodies: Sequence[Mapping[str, Any]]) -> Call[list[Job]]:
    """The same of several, each by a body of its own: all, or none."""
    return Call(
        "POST", JOBS, lambda answer: _listed(Job, json_of(answer), "jobs"), list(bodies),
        headers=_once(),
    )  # fmt: skip


def get_job(job_id: str) -> Call[Job]:
    """How far a job is."""
    return Call("GET", _job(job_id), as_read(Job))


def cancel_job(job_id: str) -> Call[Job]:
    """Cancel a job that waits or runs; delete one that has ended."""
    return Call("DELETE", _job(job_id), as_read(Job))


def fetch_job(job_id: str) -> Call[Generation]:
    """What a job made."""
    return Call("GET", f"{_job(job_id)}/audio", _job_generation)


def _job(job_id: str) -> str:
    return f"{JOBS}/{quote(job_id, safe='')}"


MEDIA_TYPES = {
    "audio/wav": "wav",
    "audio/pcm": "pcm",
    "audio/flac": "flac",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/ogg; codecs=opus": "opus",
    "audio/ogg; codecs=vorbis": "ogg",
}


def _job_generation(response: httpx.Response) -> Generation:
    """Read what nobody here has asked for: its prompt is not known where it is one file."""
    made_as = MEDIA_TYPES.get(response.headers.get("content-type", ""), "wav")
    return _generation(response, {"prompt": "", "format": made_as, "prompts": [""]})


def _listed(cls: type[T], data: Mapping[str, Any], name: str) -> list[T]:
    return [from_json(cls, one) for one in cast(list[dict[str, Any]], data.get(name, []))]


def to_json(answer: Any) -> dict[str, Any]:
    """Return an answer as JSON has it, without bytes."""
    return {name: value for name, value in asdict(answer).items() if not isinstance(value, bytes)}
