"""Sends API calls with an asyncio HTTP client, and retries those that fail for the moment."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import httpx

from audiocraft_serve.answers import AudioPart, Done
from audiocraft_serve.api_call import ApiCall, convert_http_errors, read_error
from audiocraft_serve.errors import AudiocraftError
from audiocraft_serve.events import EventReader
from audiocraft_serve.retries import Retries

T = TypeVar("T")
P = TypeVar("P")


class AsyncSender:
    """Sends API calls; `http` is the HTTP client that it uses."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries) -> None:
        self.http, self._retries = http, retries

    async def send_call(self, prepare: Callable[[], ApiCall[T]]) -> T:
        """Send a call, with retries, and return its result; `prepare` runs on a thread."""
        call = await asyncio.to_thread(prepare)
        return await self._retry(lambda: self._send_once(call))

    async def send_with_progress(
        self, call: ApiCall[EventReader[P, T]], on_progress: Callable[[P], None]
    ) -> T:
        """Send a call that is answered with events, with retries, and return the final result."""
        return await self._retry(lambda: self._follow_events(call, on_progress))

    async def open_response(self, call: ApiCall[Any]) -> aclosing[httpx.Response]:
        """Send a call, with retries, and return the response once its headers have come.

        A failure while its body is read is not retried.
        """
        return aclosing(await self._retry(lambda: self._send_request(call)))

    async def _retry(self, send: Callable[[], Awaitable[T]]) -> T:
        tries = 0
        while True:
            tries += 1
            try:
                return await send()
            except AudiocraftError as error:
                wait_s = self._retries.wait_s(tries, error)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _send_once(self, call: ApiCall[T]) -> T:
        async with aclosing(await self._send_request(call)) as response:
            with convert_http_errors():
                await response.aread()
            return call.read_response(response)

    async def _follow_events(
        self, call: ApiCall[EventReader[P, T]], on_progress: Callable[[P], None]
    ) -> T:
        async with aclosing(await self._send_request(call)) as response:
            events = read_events(response, call.read_response(response))
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Done):
                        return event.result
                    if not isinstance(event, AudioPart):
                        on_progress(event)
        raise AssertionError("events end with Done, or raise")

    async def _send_request(self, call: ApiCall[Any]) -> httpx.Response:
        """Return the response, with its body still unread. Raises ApiError, NotReachable."""
        with convert_http_errors():
            response = await self.http.send(call.build_request(self.http), stream=True)
            if response.is_success:
                return response
            async with aclosing(response):
                await response.aread()
        raise read_error(response)


async def read_parts(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body of a response as its bytes come. Raises CutOff, TimedOut."""
    with convert_http_errors():
        async for part in response.aiter_bytes():
            yield part


async def read_events(
    response: httpx.Response, reader: EventReader[P, T]
) -> AsyncGenerator[P | AudioPart | Done[T], None]:
    """Yield the events of a response. Raises ApiError, and CutOff if the last one is missing."""
    async with aclosing(read_parts(response)) as parts:
        async for part in parts:
            for event in reader.feed(part):
                yield event
    reader.check_complete()
