"""The same client, for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from audiocraft_serve import calls, connection, workflows
from audiocraft_serve.answers import (
    Analysis,
    AudioPart,
    Codes,
    Done,
    Generation,
    Job,
    Limits,
    Model,
    Progress,
    Stats,
    Streaming,
)
from audiocraft_serve.call import Call, failure, told
from audiocraft_serve.errors import AudiocraftError
from audiocraft_serve.events import EventReader
from audiocraft_serve.live import LiveParameters, LiveSession, live
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

T = TypeVar("T")
P = TypeVar("P")
Events = AsyncIterator[Progress | AudioPart | Done[Generation]]
Told = Callable[[Progress], None]
ToldAll = Callable[[WorkflowProgress], None]


class AsyncClient:
    """As `Client`, which has every method's description. A task that is cancelled stops its work.

    Files are read on a thread.
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
        made_with = connection.settings(url, api_key, timeout)
        self._http = httpx.AsyncClient(**made_with, transport=transport)
        self._retries = Retries(max_retries)

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
        await self._http.aclose()

    async def generate(
        self,
        prompt: str | Sequence[str],
        *,
        on_progress: Told | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Generation:
        """Make clips; see `Client.generate`."""
        if on_progress is None:
            return await self._do(lambda: calls.generate(prompt, parameters))
        call = await asyncio.to_thread(calls.events, prompt, parameters, stream=False)
        return await self._again(lambda: self._last(call, on_progress))

    @asynccontextmanager
    async def stream(
        self, prompt: str, **parameters: Unpack[StreamParameters]
    ) -> AsyncIterator[Streaming[AsyncGenerator[bytes, None]]]:
        """Give a clip's file while it is made; see `Client.stream`."""
        call = await asyncio.to_thread(calls.stream, prompt, parameters, _parts)
        async with await self._opened(call) as response:
            streaming = call.read(response)
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
        """Make clips, told by events; see `Client.events`."""
        call = await asyncio.to_thread(calls.events, prompt, parameters, stream=stream)
        async with await self._opened(call) as response:
            events = _events(response, call.read(response))
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
        """Return a file's codes; see `Client.encode`."""
        return await self._do(lambda: calls.encode(file, codebooks, bandwidth, model))

    async def encode_file(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> bytes:
        """Return the same as a safetensors file."""
        return await self._do(lambda: calls.encode_file(file, codebooks, bandwidth, model))

    async def decode(self, codes: Codes | File, *, model: str | None = None) -> bytes:
        """Return the WAV file of codes."""
        return await self._do(lambda: calls.decode(codes, model))

    async def analyze(
        self, file: File, *, threshold: float | None = None, model: str | None = None
    ) -> Analysis:
        """Say how real a file sounds; see `Client.analyze`."""
        return await self._do(lambda: calls.analyze(file, threshold, model))

    async def models(self) -> list[Model]:
        """Return the server's models."""
        return await self._do(calls.models)

    async def limits(self) -> Limits:
        """Return what this key may ask for."""
        return await self._do(calls.limits)

    async def stats(self) -> Stats:
        """Return what the server is doing."""
        return await self._do(calls.stats)

    async def submit_job(
        self,
        prompt: str | Sequence[str],
        *,
        webhook: str | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Job:
        """Have clips made when there is time; see `Client.submit_job`."""
        wanted = {**parameters, "webhook": webhook}
        return await self._do(lambda: calls.submit_job(prompt, wanted))

    async def submit_jobs(self, bodies: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Have several made, each by a body of its own: all of them, or none."""
        return await self._do(lambda: calls.submit_jobs(bodies))

    async def get_job(self, job_id: str) -> Job:
        """Say how far a job is."""
        return await self._do(lambda: calls.get_job(job_id))

    async def cancel_job(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; delete one that has ended."""
        return await self._do(lambda: calls.cancel_job(job_id))

    async def fetch_job(self, job_id: str) -> Generation:
        """Return what a job has made. Raises Conflict where it has not finished."""
        return await self._do(lambda: calls.fetch_job(job_id))

    async def wait_for_job(
        self, job_id: str, *, on_progress: Callable[[Job], None] | None = None
    ) -> Generation:
        """Return what a job made, once it has. Raises JobEnded where it did not."""
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
        on_progress: ToldAll | None = None,
        **parameters: Unpack[SongParameters],
    ) -> Production:
        """Make a song of sections that go on from each other."""
        return await self._made(lambda: workflows.song(sections, parameters), on_progress)

    async def podcast(
        self,
        theme: str,
        *,
        on_progress: ToldAll | None = None,
        **parameters: Unpack[PodcastParameters],
    ) -> Production:
        """Make the music of a podcast, and with `voice` lay it under it."""
        return await self._made(lambda: workflows.podcast(theme, parameters), on_progress)

    async def ambience(
        self, *, on_progress: ToldAll | None = None, **parameters: Unpack[AmbienceParameters]
    ) -> Production:
        """Make a loop without a seam, of an `environment` or a `prompt`."""
        return await self._made(lambda: workflows.ambience(parameters), on_progress)

    async def style_transfer(
        self,
        content: File,
        style: str,
        *,
        on_progress: ToldAll | None = None,
        **parameters: Unpack[StyleParameters],
    ) -> Production:
        """Make a file's melody heard in another style, by a model that follows melodies."""
        return await self._made(
            lambda: workflows.style_transfer(content, style, parameters), on_progress
        )

    @asynccontextmanager
    async def live(self, **start: Unpack[LiveParameters]) -> AsyncIterator[LiveSession]:
        """Start a session that plays on while its prompt changes; who leaves the block ends it.

        It does not go through `transport`, and is not tried again.
        """
        request = self._http.build_request("GET", "/v1/live")
        url = request.url.copy_with(scheme=request.url.scheme.replace("http", "ws"))
        sent = ("authorization", "user-agent")
        headers = {name: request.headers[name] for name in sent if name in request.headers}
        async with live(str(url), headers, start) as session:
            yield session

    async def _made(self, make: Callable[[], Workflow], on_progress: ToldAll | None) -> Production:
        workflow = await asyncio.to_thread(make)
        if on_progress is None:
            return await self._do(workflow.whole)
        call = workflow.events()
        return await self._again(lambda: self._last(call, on_progress))

    async def _do(self, make: Callable[[], Call[T]]) -> T:
        call = await asyncio.to_thread(make)
        return await self._again(lambda: self._once(call))

    async def _again(self, once: Callable[[], Awaitable[T]]) -> T:
        """Try until it works, or the retries give up."""
        tries = 0
        while True:
            tries += 1
            try:
                return await once()
            except AudiocraftError as error:
                wait_s = self._retries.wait_s(tries, error)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _once(self, call: Call[T]) -> T:
        async with aclosing(await self._sent(call)) as response:
            with told():
                await response.aread()
            return call.read(response)

    async def _last(self, call: Call[EventReader[P, T]], on_progress: Callable[[P], None]) -> T:
        """Return the result that ends the events."""
        async with aclosing(await self._sent(call)) as response:
            events = _events(response, call.read(response))
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Done):
                        return event.result
                    if not isinstance(event, AudioPart):
                        on_progress(event)
        raise AssertionError("events end with Done, or raise")

    async def _opened(self, call: Call[Any]) -> aclosing[httpx.Response]:
        """Return the answer, of as many tries as it takes; what fails later is not tried again."""
        return aclosing(await self._again(lambda: self._sent(call)))

    async def _sent(self, call: Call[Any]) -> httpx.Response:
        """Return an answer whose body is yet to be read. Raises ApiError, NotReachable."""
        with told():
            response = await self._http.send(call.built(self._http), stream=True)
            if response.is_success:
                return response
            async with aclosing(response):
                await response.aread()
        raise failure(response)


async def _parts(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    with told():
        async for part in response.aiter_bytes():
            yield part


async def _events(
    response: httpx.Response, reader: EventReader[P, T]
) -> AsyncGenerator[P | AudioPart | Done[T], None]:
    async with aclosing(_parts(response)) as parts:
        async for part in parts:
            for event in reader.feed(part):
                yield event
    reader.end()
