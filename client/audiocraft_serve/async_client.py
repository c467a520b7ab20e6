"""Defines the client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
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
from audiocraft_serve.async_sender import AsyncSender, read_events, read_parts
from audiocraft_serve.live import LiveParameters, LiveSession, open_session
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
from audiocraft_serve.workflows import Production, Workflow, WorkflowProgress

Events = AsyncIterator[Progress | AudioPart | Done[Generation]]
OnProgress = Callable[[Progress], None]
OnWorkflow = Callable[[WorkflowProgress], None]


class AsyncClient:
    """Sends requests to a server; its methods are coroutines that do what `Client`'s methods do.

    Files are read on a thread. Cancelling a task closes its connection, as leaving a block does.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = connection.TIMEOUT_S,
        max_retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        settings = connection.build_http_settings(url, api_key, timeout)
        http = httpx.AsyncClient(**settings, transport=transport)
        self._sender = AsyncSender(http, Retries(max_retries))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.http.aclose()

    async def generate(
        self,
        prompt: str | Sequence[str],
        *,
        on_progress: OnProgress | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Generation:
        """Generate clips; see `Client.generate`."""
        if on_progress is None:
            return await self._sender.send_call(
                lambda: endpoints.prepare_generate(prompt, parameters)
            )
        call = await asyncio.to_thread(endpoints.prepare_events, prompt, parameters, stream=False)
        return await self._sender.send_with_progress(call, on_progress)

    @asynccontextmanager
    async def stream(
        self, prompt: str, **parameters: Unpack[StreamParameters]
    ) -> AsyncIterator[Streaming[AsyncGenerator[bytes, None]]]:
        """Receive a clip's file while it is generated; see `Client.stream`."""
        call = await asyncio.to_thread(endpoints.prepare_stream, prompt, parameters, read_parts)
        async with await self._sender.open_response(call) as response:
            streaming = call.read_response(response)
            async with aclosing(streaming.parts):
                yield streaming

    @asynccontextmanager
    async def events(
        self,
        prompt: str | Sequence[str],
        *,
        stream: bool = False,
        **parameters: Unpack[GenerationParameters],
    ) -> AsyncIterator[Events]:
        """Generate clips, and receive events; see `Client.events`."""
        call = await asyncio.to_thread(endpoints.prepare_events, prompt, parameters, stream=stream)
        async with await self._sender.open_response(call) as response:
            events = read_events(response, call.read_response(response))
            async with aclosing(events):
                yield events

    async def encode(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> Codes:
        """Encode a file to codes; see `Client.encode`."""
        return await self._sender.send_call(
            lambda: endpoints.prepare_encode(file, codebooks, bandwidth, model)
        )

    async def encode_file(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> bytes:
        """Encode a file to a safetensors file of codes; see `Client.encode_file`."""
        return await self._sender.send_call(
            lambda: endpoints.prepare_encode_file(file, codebooks, bandwidth, model)
        )

    async def decode(self, codes: Codes | File, *, model: str | None = None) -> bytes:
        """Decode codes to a WAV file; see `Client.decode`."""
        return await self._sender.send_call(lambda: endpoints.prepare_decode(codes, model))

    async def analyze(
        self, file: File, *, threshold: float | None = None, model: str | None = None
    ) -> Analysis:
        """Score how real a file sounds; see `Client.analyze`."""
        return await self._sender.send_call(
            lambda: endpoints.prepare_analyze(file, threshold, model)
        )

    async def models(self) -> list[Model]:
        """Return the models that the server offers."""
        return await self._sender.send_call(endpoints.prepare_models)

    async def limits(self) -> Limits:
        """Return the limits that apply to the client's API key."""
        return await self._sender.send_call(endpoints.prepare_limits)

    async def stats(self) -> Stats:
        """Return the server's current load."""
        return await self._sender.send_call(endpoints.prepare_stats)

    async def submit_job(
        self,
        prompt: str | Sequence[str],
        *,
        webhook: str | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Job:
        """Submit a job; see `Client.submit_job`."""
        fields = {**parameters, "webhook": webhook}
        return await self._sender.send_call(lambda: endpoints.prepare_submit_job(prompt, fields))

    async def submit_jobs(self, bodies: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Submit several jobs; see `Client.submit_jobs`."""
        return await self._sender.send_call(lambda: endpoints.prepare_submit_jobs(bodies))

    async def get_job(self, job_id: str) -> Job:
        """Return the status of a job."""
        return await self._sender.send_call(lambda: endpoints.prepare_get_job(job_id))

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; a job that has ended keeps its result."""
        return await self._sender.send_call(lambda: endpoints.prepare_cancel_job(job_id))

    async def delete_job(self, job_id: str) -> None:
        """Delete a job with its result; see `Client.delete_job`."""
        await self._sender.send_call(lambda: endpoints.prepare_delete_job(job_id))

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        type: str | None = None,  # noqa: A002 - the name of the API
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Return a page of jobs; see `Client.list_jobs`."""
        return await self._sender.send_call(
            lambda: endpoints.prepare_list_jobs(status, type, limit, cursor)
        )

    async def fetch_job(self, job_id: str) -> Generation:
        """Return the result of a job. Raises Conflict if the job has not finished."""
        return await self._sender.send_call(lambda: endpoints.prepare_fetch_job(job_id))

    async def wait_for_job(
        self, job_id: str, *, on_progress: Callable[[Job], None] | None = None
    ) -> Generation:
        """Wait for a job, and return its result; see `Client.wait_for_job`."""
        polling = Polling(on_progress)
        while True:
            job = await self.get_job(job_id)
            if (wait_s := polling.wait_s(job)) is None:
                return await self.fetch_job(job_id)
            await asyncio.sleep(wait_s)

    async def song(
        self,
        sections: Sequence[SectionParameters],
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[SongParameters],
    ) -> Production:
        """Generate a song in which each section continues the one before."""
        return await self._run_workflow(
            lambda: workflows.build_song(sections, parameters), on_progress
        )

    async def podcast(
        self,
        theme: str,
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[PodcastParameters],
    ) -> Production:
        """Generate the music of a podcast, and mix it under `voice` if that is given."""
        return await self._run_workflow(
            lambda: workflows.build_podcast(theme, parameters), on_progress
        )

    async def ambience(
        self, *, on_progress: OnWorkflow | None = None, **parameters: Unpack[AmbienceParameters]
    ) -> Production:
        """Generate a seamless loop from an `environment` or a `prompt`."""
        return await self._run_workflow(lambda: workflows.build_ambience(parameters), on_progress)

    async def style_transfer(
        self,
        content: File,
        style: str,
        *,
        on_progress: OnWorkflow | None = None,
        **parameters: Unpack[StyleParameters],
    ) -> Production:
        """Generate music with a file's melody in another style; needs a melody model."""
        return await self._run_workflow(
            lambda: workflows.build_style_transfer(content, style, parameters), on_progress
        )

    @asynccontextmanager
    async def live(self, **start: Unpack[LiveParameters]) -> AsyncIterator[LiveSession]:
        """Start a live session, whose prompt can change; it ends when the block is left.

        The session uses a WebSocket of its own, not `transport`, and is not retried.
        """
        request = self._sender.http.build_request("GET", "/v1/live")
        url = request.url.copy_with(scheme=request.url.scheme.replace("http", "ws"))
        names = ("authorization", "user-agent")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        async with open_session(str(url), headers, start) as session:
            yield session

    async def _run_workflow(
        self, build: Callable[[], Workflow], on_progress: OnWorkflow | None
    ) -> Production:
        workflow = await asyncio.to_thread(build)
        if on_progress is None:
            return await self._sender.send_call(workflow.prepare_call)
        return await self._sender.send_with_progress(workflow.prepare_events(), on_progress)
