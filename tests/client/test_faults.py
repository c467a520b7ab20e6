"""Tests how a client handles a broken network and a busy server."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from audiocraft_serve import AsyncClient, Client, errors, retries
from audiocraft_serve.answers import Progress
from audiocraft_serve.events import EventReader
from audiocraft_serve.retries import Retries
from tests.client.conftest import HttpServer, Served
from tests.waiting import free_port

BUSY = {"error": {"message": "busy; try again in 2 s", "code": "busy", "param": None}}
WAV = {"x-model": "music", "x-seed": "1", "content-type": "audio/wav"}
URL = "http://test"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace sleeping; return the list of the seconds that clients would have waited."""
    waits = list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("audiocraft_serve.client.time.sleep", waits.append)
    monkeypatch.setattr("audiocraft_serve.async_client.asyncio.sleep", sleep)
    return waits


class Server:
    """Returns its responses in order, repeats the last one, and records the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.seen = list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connect(self, **settings: Any) -> Client:
        """Return a client of this server."""
        return Client(URL, transport=httpx.MockTransport(self), **settings)


def build_refusal(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=BUSY, headers=headers)


def build_file() -> httpx.Response:
    return httpx.Response(200, content=b"RIFF", headers=WAV)


@pytest.mark.parametrize(
    "fault",
    [
        build_refusal(429, **{"retry-after": "2"}),
        build_refusal(503),
        httpx.Response(503, text="no replica"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
    ],
)
def test_what_is_refused_for_now_is_asked_again_and_made_once(
    fault: httpx.Response | Exception, slept: list[float]
):
    server = Server(fault, build_file())
    assert server.connect().generate("a").audio == b"RIFF"
    first, second = server.seen
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.content == second.content
    asked = 2.0 if isinstance(fault, httpx.Response) and "retry-after" in fault.headers else 0.0
    (waited,) = slept
    assert asked + retries.FIRST_S / 2 <= waited <= asked + retries.FIRST_S


def test_every_call_has_a_key_of_its_own(slept: list[float]):
    server = Server(build_file())
    client = server.connect()
    client.generate("a")
    client.generate("a")
    first, second = (request.headers["idempotency-key"] for request in server.seen)
    assert first != second


async def test_the_async_client_asks_again_too(slept: list[float]):
    server = Server(build_refusal(429), build_file())
    async with AsyncClient(URL, transport=httpx.MockTransport(server)) as client:
        assert (await client.generate("a")).audio == b"RIFF"
    assert len(slept) == 1


@pytest.mark.parametrize("most", [0, 3])
def test_retries_are_bounded_and_ever_longer(most: int, slept: list[float]):
    server = Server(build_refusal(429))
    with pytest.raises(errors.TooManyRequests) as caught:
        server.connect(max_retries=most).generate("a")
    assert (caught.value.code, caught.value.status) == ("busy", 429)
    assert len(server.seen) == most + 1
    bounds = [retries.FIRST_S * 2**tries for tries in range(most)]
    assert all(b / 2 <= waited <= b for b, waited in zip(bounds, slept, strict=True))


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_what_would_fail_again_is_not_asked_again(status: int, slept: list[float]):
    server = Server(build_refusal(status))
    with pytest.raises(errors.ApiError) as caught:
        server.connect().generate("a")
    assert caught.value.status == status
    assert (len(server.seen), slept) == (1, [])


def test_who_is_to_wait_for_long_is_told_so(slept: list[float]):
    server = Server(build_refusal(429, **{"retry-after": "600"}))
    with pytest.raises(errors.TooManyRequests) as caught:
        server.connect().generate("a")
    assert caught.value.retry_after == 600
    assert slept == []


def test_a_time_out_was_waited_for_long_enough(slept: list[float]):
    server = Server(httpx.ReadTimeout("late"))
    with pytest.raises(errors.TimedOut):
        server.connect().generate("a")
    assert (len(server.seen), slept) == (1, [])
    limits = server.connect(timeout=7).limits
    with pytest.raises(errors.TimedOut):
        limits()
    assert server.seen[-1].extensions["timeout"]["read"] == 7


def test_waits_end_at_the_longest():
    policy = Retries(100)
    waited = policy.wait_s(50, errors.NotReachable("x"))
    assert waited is not None
    assert retries.LONGEST_S / 2 <= waited <= retries.LONGEST_S


def test_nobody_listens(slept: list[float]):
    client = Client(f"http://127.0.0.1:{free_port()}", max_retries=1)
    with client, pytest.raises(errors.NotReachable, match="cannot be reached"):
        client.models()
    assert len(slept) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x"])
def test_an_address_that_is_none(url: str):
    with pytest.raises(ValueError, match="http://"):
        Client(url)


def test_another_server():
    page = httpx.Response(200, text="<html>", headers={"content-type": "text/html"})
    client = Server(page).connect()
    for ask in (client.models, client.limits, lambda: client.generate("a")):
        with pytest.raises(errors.UnexpectedAnswer):
            ask()
    with pytest.raises(errors.UnexpectedAnswer, match="not with events"):
        client.generate("a", on_progress=lambda _: None)
    with pytest.raises(errors.UnexpectedAnswer, match="lacks fields"):
        Server(httpx.Response(200, json={})).connect().limits()
    with pytest.raises(errors.UnexpectedAnswer, match="no JSON object"):
        Server(httpx.Response(200, json=[])).connect().models()
    for broken in (
        b"event: done\ndata: {\n\n",
        build_event("audio", clip=0, audio="?"),
        build_event("audio"),
    ):
        with pytest.raises(errors.UnexpectedAnswer, match="cannot be read"):
            Server(build_event_stream(broken)).connect().generate("a", on_progress=lambda _: None)


def build_cut_off(*parts: bytes) -> httpx.Response:
    """Return a response whose connection breaks after these parts."""

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from parts
            raise httpx.RemoteProtocolError("incomplete chunked read")

    return httpx.Response(200, stream=Broken(), headers=WAV)


def test_a_cut_stream_is_not_taken_for_whole(slept: list[float]):
    server = Server(build_cut_off(b"RI"), build_file())
    heard = list[bytes]()
    with pytest.raises(errors.CutOff), server.connect().stream("a") as stream:
        heard.extend(stream.parts)
    assert (heard, len(server.seen)) == ([b"RI"], 1)


def test_a_cut_answer_that_nobody_has_seen_is_asked_again(slept: list[float]):
    server = Server(build_cut_off(b"RI"), build_file())
    assert server.connect().generate("a").audio == b"RIFF"


def build_event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


DONE = build_event(
    "done", model="music", seed=1, format="wav", clips=[{"prompt": "a\u2028b", "variation": 0}]
)
PROGRESS = build_event("progress", clip=0, stage="generate", done=1, total=2)
AUDIO = build_event("audio", clip=0, audio="UklG") + build_event("audio", clip=0, audio="Rg==")


def build_event_stream(*parts: bytes) -> httpx.Response:
    return httpx.Response(
        200, content=b"".join(parts), headers={"content-type": "text/event-stream"}
    )


def test_events_without_an_end_are_asked_for_again(slept: list[float]):
    server = Server(
        build_event_stream(PROGRESS), build_event_stream(PROGRESS, b": keep-alive\n\n", AUDIO, DONE)
    )
    told = list[Any]()
    made = server.connect().generate("a", on_progress=told.append)
    assert (made.audio, made.clip.prompt) == (b"RIFF", "a\u2028b")
    assert len(told) == 2
    assert all("idempotency-key" not in request.headers for request in server.seen)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_may_be_cut_anywhere(size: int):
    reader = EventReader(Progress, lambda data, audio: (data, audio))
    text = (PROGRESS + b": c\n\n" + AUDIO + build_event("later", x=1) + DONE).replace(
        b"\n", b"\r\n"
    )
    found = [one for at in range(0, len(text), size) for one in reader.feed(text[at : at + size])]
    reader.check_complete()
    assert [type(one).__name__ for one in found] == ["Progress", "AudioPart", "AudioPart", "Done"]


async def test_a_server_that_dies_amid_a_stream(served: Served):
    """Over real sockets, the connection breaks after the headers and a part of the body."""

    async def dies(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        head = [(name.encode(), value.encode()) for name, value in WAV.items()]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"RI", "more_body": True})
        raise RuntimeError("dies")

    async with HttpServer(dies) as url, AsyncClient(url) as client, client.stream("a") as stream:
        assert await anext(stream.parts) == b"RI"
        with pytest.raises(errors.CutOff):
            await anext(stream.parts)


async def test_a_retry_is_not_made_twice(served: Served, monkeypatch: pytest.MonkeyPatch):
    """If the first response is lost, the retry returns the same clip, generated once."""
    monkeypatch.setattr(retries, "FIRST_S", 0.0)

    class Lossy(httpx.AsyncHTTPTransport):
        lost = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await super().handle_async_request(request)
            if not self.lost:
                self.lost += 1
                await answer.aread()
                raise httpx.ReadError("lost", request=request)
            return answer

    transport = Lossy()
    key = served.environment["AUDIOCRAFT_SERVE_API_KEY"]
    async with AsyncClient(served.url, key, transport=transport) as client:
        made = await client.generate("a", duration=1)
    assert transport.lost == 1
    assert [params.seed for params in served.music.seen] == [made.seed]
