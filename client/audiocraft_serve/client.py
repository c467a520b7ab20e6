"""Defines the blocking client."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from audiocraft_serve import connection, endpoints, workflows
from audiocraft_serve.answers import (
    Analysis,
    AudioPart,
    Codes,
    Done,
    Generation,
    Job,
    JobPage,
    JobStatus,
    Limits,
    Model,
    Progress,
    Stats,
    Streaming,
)
from audiocraft_serve.parameters import (
    AmbienceParameters,
    File,
    GenerationParameters,
    PodcastParameters,
    SectionParameters,
    SongParameters,
    StreamParameters,
    StyleParameters,
)
from audiocraft_serve.polling import Polling
from audiocraft_serve.retries import Retries
from audiocraft_serve.sender import Sender, read_events, read_parts
from audiocraft_serve.workflows import Production, Workflow, WorkflowProgress

Events = Iterator[Progress | AudioPart | Done[Generation]]
OnProgress = Callable[[Progress], None]
OnWorkflow = Callable[[WorkflowProgress], None]


class Client:
    """Sends requests to a server; can be shared between threads.

    `url` and `api_key` are read from AUDIOCRAFT_SERVE_URL and AUDIOCRAFT_SERVE_API_KEY if they are
    not given. `timeout` is the longest wait for the next bytes of a response, in seconds. Requests
    that are refused with 429 or 503, and broken connections, are retried up to `max_retries` times;
    a retry never generates a clip twice.

    Every method raises `audiocraft_serve.errors.AudiocraftError`, and OSError if a file cannot be
    read.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = connection.TIMEOUT_S,
        max_retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = connection.build_http_settings(url, api_key, timeout)
        http = httpx.Client(**settings, transport=transport)
        self._sender = Sender(http, Retries(max_retries))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._sender.http.close()

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        on_progress: OnProgress | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Generation:
        """Generate `n` clips for each prompt.

        With `on_progress`, the server stops the work if the client disconnects. Without it, the
        server completes the work, and a retry after a broken connection returns the same clips.
        """
        if on_progress is None:
            return self._sender.send_call(endpoints.prepare_generate(prompt, parameters))
        call = endpoints.prepare_events(prompt, parameters, stream=False)
        return self._sender.send_with_progress(call, on_progress)

    @contextmanager
    def stream(
        self, prompt: str, **parameters: Unpack[StreamParameters]
    ) -> Iterator[Streaming[Iterator[bytes]]]:
        """Generate a clip, and receive its file while it is generated.

        The work stops when the block is left. A failure after the first bytes is not retried.
        """
        call = endpoints.prepare_stream(prompt, parameters, read_parts)
        with self._sender.open_response(call) as response:
            yield call.read_response(response)

    @contextmanager
    def events(
        self,
        prompt: str | Sequence[str],
        *,
        stream: bool = False,
        **parameters: Unpack[GenerationParameters],
    ) -> Iterator[Events]:
        """Generate clips, and receive `Progress` events, or `AudioPart`s if `stream` is set.

        The last event is `Done`. The work stops when the block is left.
        """
        call = endpoints.prepare_events(prompt, parameters, stream=stream)
        with self._sender.open_response(call) as response:
            events = read_events(response, call.read_response(response))
            yield events

    def encode(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> Codes:
        """Encode a file to codes; `codebooks`, or `bandwidth` in kbit/s, limits their number."""
        return self._sender.send_call(endpoints.prepare_encode(file, codebooks, bandwidth, model))

    def encode_file(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> bytes:
        """Encode a file to a safetensors file of codes, for `decode` and `continue_from`."""
        return self._sender.send_call(
            endpoints.prepare_encode_file(file, codebooks, bandwidth, model)
        )

    def decode(self, codes: Codes | File, *, model: str | None = None) -> bytes:
        """Decode the result of `encode` or `encode_file` to a WAV file."""
        return self._sender.send_call(endpoints.prepare_decode(codes, model))

    def analyze(
        self, file: File, *, threshold: float | None = None, model: str | None = None
    ) -> Analysis:
        """Score how real a file sounds; `threshold` is from 0 to 1, by default 0.5."""
        return self._sender.send_call(endpoints.prepare_analyze(file, threshold, model))

    def models(self) -> list[Model]:
        """Return the models that the server offers."""
        return self._sender.send_call(endpoints.prepare_models())

    def limits(self) -> Limits:
        """Return the limits that apply to the client's API key."""
        return self._sender.send_call(endpoints.prepare_limits())

    def stats(self) -> Stats:
        """Return the server's current load."""
        return self._sender.send_call(endpoints.prepare_stats())

    def submit_job(
        self,
        prompt: str | Sequence[str],
        *,
        webhook: str | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Job:
        """Submit a job; at its end the server calls `webhook`, an https address."""
        return self._sender.send_call(
            endpoints.prepare_submit_job(prompt, {**parameters, "webhook": webhook})
        )

    def submit_jobs(self, bodies: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Submit several jobs, each with a body of `POST /v1/jobs`; all are accepted or none."""
        return self._sender.send_call(endpoints.prepare_submit_jobs(bodies))

    def get_job(self, job_id: str) -> Job:
        """Return the status of a job."""
        return self._sender.send_call(endpoints.prepare_get_job(job_id))

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; a job that has ended keeps its result."""
        return self._sender.send_call(endpoints.prepare_cancel_job(job_id))

    def delete_job(self, job_id: str) -> None:
        """Delete a job with its result; a job that has not ended is cancelled first."""
        self._sender.send_call(endpoints.prepare_delete_job(job_id))

    def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        type: str | None = None,  # noqa: A002 - the name of the API
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Return a page of the jobs of the client's API key, the newest first."""
        return self._sender.send_call(endpoints.prepare_list_jobs(status, type, limit, cursor))

    def fetch_job(self, job_id: str) -> Generation:
        """Return the result of a job. Raises Conflict if the job has not finished."""
        return self._sender.send_call(endpoints.prepare_fetch_job(job_id))

    def wait_for_job(
        self, job_id: str, *, on_progress: Callable[[Job], None] | None = None
    ) -> Generation:
        """Wait for a job, and return its result. Raises JobEnded if it failed or was cancelled."""
        polling = Polling(on_progress)
        while (wait_s := polling.wait_s(self.get_job(job_id))) is not None:
            time.sleep(wait_s)
        return self.fetch_job(job_id)

    def song(
        self,
        sections: Sequence[SectionParameters],
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[SongParameters],
    ) -> Production:
        """Generate a song in which each section continues the one before."""
        return self._run_workflow(workflows.build_song(sections, parameters), on_progress)

    def podcast(
        self,
        theme: str,
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[PodcastParameters],
    ) -> Production:
        """Generate the music of a podcast, and mix it under `voice` if that is given."""
        return self._run_workflow(workflows.build_podcast(theme, parameters), on_progress)

    def ambience(
        self, *, on_progress: OnWorkflow | None = None, **parameters: Unpack[AmbienceParameters]
    ) -> Production:
        """Generate a seamless loop from an `environment` or a `prompt`."""
        return self._run_workflow(workflows.build_ambience(parameters), on_progress)

    def style_transfer(
        self,
        content: File,
        style: str,
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[StyleParameters],
    ) -> Production:
        """Generate music with a file's melody in another style; needs a melody model."""
        return self._run_workflow(
            workflows.build_style_transfer(content, style, parameters), on_progress
        )

    def _run_workflow(self, workflow: Workflow, on_progress: OnWorkflow | None) -> Production:
        if on_progress is None:
            return self._sender.send_call(workflow.prepare_call())
        return self._sender.send_with_progress(workflow.prepare_events(), on_progress)
