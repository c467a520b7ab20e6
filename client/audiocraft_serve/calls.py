"""The requests of all but the workflows, which both clients share."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
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
    Progress,
    Stats,
    Streaming,
    from_json,
)
from audiocraft_serve.call import EVENTS, Call, as_read, bytes_of, events_of, json_of, told_by
from audiocraft_serve.errors import UnexpectedAnswer
from audiocraft_serve.events import EventReader
from audiocraft_serve.parameters import FILES, File, GenerationParameters, StreamParameters

T = TypeVar("T")
Parts = TypeVar("Parts")
GENERATIONS, JOBS = "/v1/generations", "/v1/jobs"
MEDIA_TYPES = {
    "audio/wav": "wav",
    "audio/pcm": "pcm",
    "audio/flac": "flac",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/ogg; codecs=opus": "opus",
    "audio/ogg; codecs=vorbis": "ogg",
}


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
    first = prompt if isinstance(prompt, str) else next(iter(prompt), "")
    return _posted(GENERATIONS, lambda answer: _generation(answer, first), body, _once())


def events(
    prompt: str | Sequence[str], parameters: GenerationParameters, *, stream: bool
) -> Call[EventReader[Progress, Generation]]:
    """Make clips, told by events. Who leaves stops the work, so none has a key to be made once."""
    body = _body(prompt, parameters) | {"stream": stream}

    def reader(response: httpx.Response) -> EventReader[Progress, Generation]:
        told = told_by(response)
        return events_of(response, Progress, lambda data, audio: _of_clips(data, audio, **told))

    return _posted(GENERATIONS, reader, body, EVENTS)


def stream(
    prompt: str, parameters: StreamParameters, parts: Callable[[httpx.Response], Parts]
) -> Call[Streaming[Parts]]:
    """Make a clip whose file is sent while it is made, and is read by `parts`."""
    body = _body(prompt, parameters) | {"stream": True}

    def read(response: httpx.Response) -> Streaming[Parts]:
        model, seed, made_as = _named(response)
        name = response.headers.get("x-request-id")
        return Streaming(parts(response), model, seed, made_as, name)

    return _posted(GENERATIONS, read, body, {})


def _named(response: httpx.Response) -> tuple[str, int, str]:
    """Return an answer's model, seed and format, by its headers."""
    headers = response.headers
    try:
        return headers["x-model"], int(headers["x-seed"]), MEDIA_TYPES[headers["content-type"]]
    except (KeyError, ValueError) as error:
        message = f"{response.url} answered without model, seed and audio; is it this API's server?"
        raise UnexpectedAnswer(message) from error


def _generation(response: httpx.Response, prompt: str) -> Generation:
    """Read the file of one clip, or several in JSON."""
    told = told_by(response)
    if response.headers.get("content-type", "").startswith("application/json"):
        return _of_clips(json_of(response), {}, **told)
    model, seed, made_as = _named(response)
    times = _milliseconds(response.headers.get("server-timing", ""))
    clip = Clip(prompt, 0, response.content)
    return Generation([clip], model, seed, made_as, milliseconds=times, **told)


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
    """What a job made; the prompt of an only clip is not told."""
    return Call("GET", f"{_job(job_id)}/audio", lambda answer: _generation(answer, ""))


def _job(job_id: str) -> str:
    return f"{JOBS}/{quote(job_id, safe='')}"


def _listed(cls: type[T], data: Mapping[str, Any], name: str) -> list[T]:
    return [from_json(cls, one) for one in data.get(name, [])]
