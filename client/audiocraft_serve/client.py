"""The client."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
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
Events = Iterator[Progress | AudioPart | Done[Generation]]
Told = Callable[[Progress], None]
ToldAll = Callable[[WorkflowProgress], None]


class Client:
    """Asks a server; safe to share between threads.

    `url` and `api_key` come of AUDIOCRAFT_SERVE_URL and AUDIOCRAFT_SERVE_API_KEY where they are not
    given. `timeout` bounds the seconds in which nothing comes. What is refused for now (429, 503),
    and broken connections, are tried again `max_retries` times; nothing is made twice by that.

    Every method raises `audiocraft_serve.errors.AudiocraftError`s, and OSError where a file cannot
    be read.
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
        made_with = connection.settings(url, api_key, timeout)
        self._http = httpx.Client(**made_with, transport=transport)
        self._retries = Retries(max_retries)

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
        self._http.close()

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        on_progress: Told | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Generation:
        """Make a clip of a prompt, or of each of several, in `n` variations.

        With `on_progress` the work stops when the caller leaves; without, it is made to its end,
        once, though its answer be lost and asked for again.
        """
        if on_progress is None:
            return self._do(calls.generate(prompt, parameters))
        call = calls.events(prompt, parameters, stream=False)
        return self._again(lambda: self._last(call, on_progress))

    @contextmanager
    def stream(
        self, prompt: str, **parameters: Unpack[StreamParameters]
    ) -> Iterator[Streaming[Iterator[bytes]]]:
        """Make a clip, and give its file while it is made; who leaves the block stops it.

        What breaks after the first bytes raises, and is not tried again.
        """
        call = calls.stream(prompt, parameters, _parts)
        with self._opened(call) as response:
            yield call.read(response)

    @contextmanager
    def events(
        self,
        prompt: str | Sequence[str],
        *,
        stream: bool = False,
        **parameters: Unpack[GenerationParameters],
    ) -> Iterator[Events]:
        """Make clips, told by events: `Progress`, or with `stream` `AudioPart`s; at last `Done`.

        Who leaves the block stops the work.
        """
        call = calls.events(prompt, parameters, stream=stream)
        with self._opened(call) as response:
            events = _events(response, call.read(response))
            yield events

    def encode(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> Codes:
        """Return a file's codes; fewer `codebooks`, or a `bandwidth` in kbit/s, keep less of it."""
        return self._do(calls.encode(file, codebooks, bandwidth, model))

    def encode_file(
        self,
        file: File,
        *,
        codebooks: int | None = None,
        bandwidth: float | None = None,
        model: str | None = None,
    ) -> bytes:
        """Return the same as a safetensors file, which `decode` and `continue_from` take."""
        return self._do(calls.encode_file(file, codebooks, bandwidth, model))

    def decode(self, codes: Codes | File, *, model: str | None = None) -> bytes:
        """Return the WAV file of codes, as `encode` or `encode_file` gave them."""
        return self._do(calls.decode(codes, model))

    def analyze(
        self, file: File, *, threshold: float | None = None, model: str | None = None
    ) -> Analysis:
        """Say how real a file sounds, against a `threshold` from 0 to 1 (0.5)."""
        return self._do(calls.analyze(file, threshold, model))

    def models(self) -> list[Model]:
        """Return the server's models."""
        return self._do(calls.models())

    def limits(self) -> Limits:
        """Return what this key may ask for."""
        return self._do(calls.limits())

    def stats(self) -> Stats:
        """Return what the server is doing."""
        return self._do(calls.stats())

    def submit_job(
        self,
        prompt: str | Sequence[str],
        *,
        webhook: str | None = None,
        **parameters: Unpack[GenerationParameters],
    ) -> Job:
        """Have clips made when there is time; `webhook`, an https address, is told of it."""
        return self._do(calls.submit_job(prompt, {**parameters, "webhook": webhook}))

    def submit_jobs(self, bodies: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Have several made, each by a body as `POST /v1/jobs` takes it: all of them, or none."""
        return self._do(calls.submit_jobs(bodies))

    def get_job(self, job_id: str) -> Job:
        """Say how far a job is."""
        return self._do(calls.get_job(job_id))

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; delete one that has ended, with its audio."""
        return self._do(calls.cancel_job(job_id))

    def fetch_job(self, job_id: str) -> Generation:
        """Return what a job has made. Raises Conflict where it has not finished."""
        return self._do(calls.fetch_job(job_id))

    def wait_for_job(
        self, job_id: str, *, on_progress: Callable[[Job], None] | None = None
    ) -> Generation:
        """Wait until a job has finished; return what it made. Raises JobEnded where it did not."""
        polling = Polling(on_progress)
        while (wait_s := polling.wait_s(self.get_job(job_id))) is not None:
            time.sleep(wait_s)
        return self.fetch_job(job_id)

    def song(
        self,
        sections: Sequence[SectionParameters],
        *,
        on_progress: ToldAll | None = None,
        **parameters: Unpack[SongParameters],
    ) -> Production:
        """Make a song of sections that go on from each other."""
        return self._made(workflows.song(sections, parameters), on_progress)

    def podcast(
        self,
        theme: str,
        *,
        on_progress: ToldAll | None = None,
        **parameters: Unpack[PodcastParameters],
    ) -> Production:
        """Make the music of a podcast, and with `voice` lay it under it."""
        return self._made(workflows.podcast(theme, parameters), on_progress)

    def ambience(
        self, *, on_progress: ToldAll | None = None, **parameters: Unpack[AmbienceParameters]
    ) -> Production:
        """Make a loop without a seam, of an `environment` or a `prompt`."""
        return self._made(workflows.ambience(parameters), on_progress)

    def style_transfer(
        self,
        content: File,
        style: str,
        *,
        on_progress: ToldAll | None = None,
        **parameters: Unpack[StyleParameters],
    ) -> Production:
        """Make a file's melody heard in another style, by a model that follows melodies."""
        return self._made(workflows.style_transfer(content, style, parameters), on_progress)

    def _made(self, workflow: Workflow, on_progress: ToldAll | None) -> Production:
        if on_progress is None:
            return self._do(workflow.whole())
        call = workflow.events()
        return self._again(lambda: self._last(call, on_progress))

    def _do(self, call: Call[T]) -> T:
        return self._again(lambda: self._once(call))

    def _again(self, once: Callable[[], T]) -> T:
        """Try until it works, or the retries give up."""
        tries = 0
        while True:
            tries += 1
            try:
                return once()
            except AudiocraftError as error:
                wait_s = self._retries.wait_s(tries, error)
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _once(self, call: Call[T]) -> T:
        with closing(self._sent(call)) as response:
            with told():
                response.read()
            return call.read(response)

    def _last(self, call: Call[EventReader[P, T]], on_progress: Callable[[P], None]) -> T:
        """Return the result that ends the events."""
        with closing(self._sent(call)) as response:
            for event in _events(response, call.read(response)):
                if isinstance(event, Done):
                    return event.result
                if not isinstance(event, AudioPart):
                    on_progress(event)
        raise AssertionError("events end with Done, or raise")

    def _opened(self, call: Call[Any]) -> closing[httpx.Response]:
        """Return the answer, of as many tries as it takes; what fails later is not tried again."""
        return closing(self._again(lambda: self._sent(call)))

    def _sent(self, call: Call[Any]) -> httpx.Response:
        """Return an answer whose body is yet to be read. Raises ApiError, NotReachable."""
        with told():
            response = self._http.send(call.built(self._http), stream=True)
            if response.is_success:
                return response
            with closing(response):
                response.read()
        raise failure(response)


def _parts(response: httpx.Response) -> Iterator[bytes]:
    with told():
        yield from response.iter_bytes()


def _events(
    response: httpx.Response, reader: EventReader[P, T]
) -> Iterator[P | AudioPart | Done[T]]:
    for part in _parts(response):
        yield from reader.feed(part)
    reader.end()
