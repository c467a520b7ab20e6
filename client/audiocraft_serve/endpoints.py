"""Prepares the API calls of every endpoint except the workflows, for both clients."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx

from audiocraft_serve.answers import (
    Analysis,
    Clip,
    Codes,
    Generation,
    Job,
    JobPage,
    JobStatus,
    Limits,
    Model,
    Progress,
    Stats,
    Streaming,
    from_json,
)
from audiocraft_serve.api_call import (
    ACCEPT_EVENTS,
    ApiCall,
    build_answer_reader,
    build_event_reader,
    read_bytes,
    read_file,
    read_headers,
    read_json,
)
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


def _new_idempotency_key() -> dict[str, str]:
    return {"idempotency-key": uuid4().hex}


def _prepare_post(
    path: str,
    read_response: Callable[[httpx.Response], T],
    body: Mapping[str, Any],
    headers: Mapping[str, str],
) -> ApiCall[T]:
    """Return a POST call with a JSON body, or with a form if the body contains files."""
    fields = {name: value for name, value in body.items() if name not in FILES}
    files = {name: read_file(body[name]) for name in FILES if name in body}
    if files:
        return ApiCall("POST", path, read_response, fields=fields, files=files, headers=headers)
    return ApiCall("POST", path, read_response, json=fields, headers=headers)


def _build_body(prompt: str | Sequence[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    return given | ({"prompt": prompt} if isinstance(prompt, str) else {"prompts": list(prompt)})


def prepare_generate(
    prompt: str | Sequence[str], parameters: GenerationParameters
) -> ApiCall[Generation]:
    """Generate clips; its `Idempotency-Key` keeps a retry from generating them twice."""
    body = _build_body(prompt, parameters)
    first = prompt if isinstance(prompt, str) else next(iter(prompt), "")
    return _prepare_post(
        GENERATIONS, lambda response: _read_generation(response, first), body,
        _new_idempotency_key(),
    )  # fmt: skip


def prepare_events(
    prompt: str | Sequence[str], parameters: GenerationParameters, *, stream: bool
) -> ApiCall[EventReader[Progress, Generation]]:
    """Generate clips and report progress by events; with `stream`, send audio by events too.

    The call has no `Idempotency-Key`, because the server stops the work when the client
    disconnects.
    """
    body = _build_body(prompt, parameters) | {"stream": stream}

    def read_response(response: httpx.Response) -> EventReader[Progress, Generation]:
        headers = read_headers(response)
        return build_event_reader(
            response, Progress, lambda data, audio: _build_generation(data, audio, headers)
        )

    return _prepare_post(GENERATIONS, read_response, body, ACCEPT_EVENTS)


def prepare_stream(
    prompt: str, parameters: StreamParameters, read_parts: Callable[[httpx.Response], Parts]
) -> ApiCall[Streaming[Parts]]:
    """Generate one clip whose file is sent while it is generated; `read_parts` yields its bytes."""
    body = _build_body(prompt, parameters) | {"stream": True}

    def read_response(response: httpx.Response) -> Streaming[Parts]:
        model, seed, format_name = _read_clip_headers(response)
        request_id = response.headers.get("x-request-id")
        return Streaming(read_parts(response), model, seed, format_name, request_id)

    return _prepare_post(GENERATIONS, read_response, body, {})


def _read_clip_headers(response: httpx.Response) -> tuple[str, int, str]:
    """Return the model, the seed and the output format that the headers of an audio file give."""
    headers = response.headers
    try:
        return headers["x-model"], int(headers["x-seed"]), MEDIA_TYPES[headers["content-type"]]
    except (KeyError, ValueError) as error:
        message = f"{response.url} answered without model, seed and audio; is it this API's server?"
        raise UnexpectedAnswer(message) from error


def _read_generation(response: httpx.Response, prompt: str) -> Generation:
    """Read a response that is the audio file of one clip, or JSON with several clips."""
    headers = read_headers(response)
    if response.headers.get("content-type", "").startswith("application/json"):
        return _build_generation(read_json(response), {}, headers)
    model, seed, format_name = _read_clip_headers(response)
    milliseconds = _parse_server_timing(response.headers.get("server-timing", ""))
    clip = Clip(prompt, 0, response.content)
    return Generation([clip], model, seed, format_name, milliseconds=milliseconds, **headers)


def _build_generation(
    data: Mapping[str, Any], audio: Mapping[int, bytes], headers: Mapping[str, str | None]
) -> Generation:
    """Build the answer from JSON; `audio` has files that came by events, by number of the clip."""
    clips = [
        from_json(
            Clip,
            one,
            audio=audio[number] if number in audio else base64.b64decode(one.get("audio", "")),
        )
        for number, one in enumerate(data.get("clips", ()))
    ]
    return from_json(Generation, data, clips=clips, **headers)


def _parse_server_timing(header: str) -> dict[str, float]:
    """Parse `Server-Timing`, for example `generate;dur=81.5, total;dur=90.1`, in milliseconds."""
    stages = (one.strip().partition(";dur=") for one in header.split(",") if ";dur=" in one)
    return {name: float(value) for name, _, value in stages}


def prepare_encode(
    file: File, codebooks: int | None, bandwidth: float | None, model: str | None
) -> ApiCall[Codes]:
    """Encode an audio file to codes."""
    fields = {"codebooks": codebooks, "bandwidth": bandwidth, "model": model}
    files = {"audio_file": read_file(file)}
    return ApiCall(
        "POST", "/v1/codec/encode", build_answer_reader(Codes), fields=fields, files=files
    )


def prepare_encode_file(
    file: File, codebooks: int | None, bandwidth: float | None, model: str | None
) -> ApiCall[bytes]:
    """Encode an audio file to codes in a safetensors file."""
    fields = {
        "codebooks": codebooks, "bandwidth": bandwidth, "model": model, "format": "safetensors",
    }  # fmt: skip
    files = {"audio_file": read_file(file)}
    return ApiCall("POST", "/v1/codec/encode", read_bytes, fields=fields, files=files)


def prepare_decode(codes: Codes | File, model: str | None) -> ApiCall[bytes]:
    """Decode codes, or a safetensors file of codes, to a WAV file."""
    path = "/v1/codec/decode"
    if isinstance(codes, Codes):
        body = {"codes": codes.codes, "samples": codes.samples, "model": model or codes.model}
        return ApiCall("POST", path, read_bytes, json=body)
    files = {"codes_file": read_file(codes)}
    return ApiCall("POST", path, read_bytes, fields={"model": model}, files=files)


def prepare_analyze(file: File, threshold: float | None, model: str | None) -> ApiCall[Analysis]:
    """Score an audio file with the discriminators."""
    fields = {"threshold": threshold, "model": model}
    files = {"audio_file": read_file(file)}
    return ApiCall("POST", "/analyze", build_answer_reader(Analysis), fields=fields, files=files)


def prepare_models() -> ApiCall[list[Model]]:
    """List the server's models."""
    return ApiCall("GET", "/v1/models", lambda response: _read_list(Model, response, "data"))


def prepare_limits() -> ApiCall[Limits]:
    """Read the limits that apply to the client's API key."""
    return ApiCall("GET", "/v1/limits", build_answer_reader(Limits))


def prepare_stats() -> ApiCall[Stats]:
    """Read the server's current load."""
    return ApiCall("GET", "/v1/stats", build_answer_reader(Stats))


def prepare_submit_job(prompt: str | Sequence[str], parameters: Mapping[str, Any]) -> ApiCall[Job]:
    """Submit a job; its `Idempotency-Key` keeps a retry from submitting it twice."""
    body = _build_body(prompt, parameters)
    return _prepare_post(JOBS, build_answer_reader(Job), body, _new_idempotency_key())


def prepare_submit_jobs(bodies: Sequence[Mapping[str, Any]]) -> ApiCall[list[Job]]:
    """Submit several jobs, one per body; the server accepts all of them or none."""
    return ApiCall(
        "POST", JOBS, lambda response: _read_list(Job, response, "jobs"), list(bodies),
        headers=_new_idempotency_key(),
    )  # fmt: skip


def prepare_get_job(job_id: str) -> ApiCall[Job]:
    """Read the status of a job."""
    return ApiCall("GET", _job_path(job_id), build_answer_reader(Job))


def prepare_cancel_job(job_id: str) -> ApiCall[Job]:
    """Cancel a job that waits or runs."""
    return ApiCall("POST", f"{_job_path(job_id)}/cancel", build_answer_reader(Job))


def prepare_delete_job(job_id: str) -> ApiCall[None]:
    """Delete a job with its result."""
    return ApiCall("DELETE", _job_path(job_id), lambda _: None)


def prepare_list_jobs(
    status: JobStatus | None, type_name: str | None, limit: int | None, cursor: str | None
) -> ApiCall[JobPage]:
    """Read a page of the jobs of the client's API key."""
    wanted = {"status": status, "type": type_name, "limit": limit, "cursor": cursor}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})

    def read_page(response: httpx.Response) -> JobPage:
        jobs = tuple(_read_list(Job, response, "jobs"))
        return JobPage(jobs, read_json(response).get("next_cursor"))

    return ApiCall("GET", f"{JOBS}?{query}" if query else JOBS, read_page)


def prepare_fetch_job(job_id: str) -> ApiCall[Generation]:
    """Fetch the result of a job; the server does not return the prompt of a single clip."""
    return ApiCall(
        "GET", f"{_job_path(job_id)}/audio", lambda response: _read_generation(response, "")
    )


def _job_path(job_id: str) -> str:
    return f"{JOBS}/{quote(job_id, safe='')}"


def _read_list(cls: type[T], response: httpx.Response, name: str) -> list[T]:
    return [from_json(cls, one) for one in read_json(response).get(name, [])]
