"""Sends API calls with a blocking HTTP client, and retries those that fail for the moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import httpx

from audiocraft_serve.answers import AudioPart, Done
from audiocraft_serve.api_call import ApiCall, convert_http_errors, read_error
from audiocraft_serve.errors import AudiocraftError
from audiocraft_serve.events import EventReader
from audiocraft_serve.retries import Retries

T = TypeVar("T")
P = TypeVar("P")


class Sender:
    """Sends API calls; `http` is the HTTP client that it uses."""

    def __init__(self, http: httpx.Client, retries: Retries) -> None:
        self.http, self._retries = http, retries

    def send_call(self, call: ApiCall[T]) -> T:
        """Send a call, with retries, and return its result."""
        return self._retry(lambda: self._send_once(call))

    def send_with_progress(
        self, call: ApiCall[EventReader[P, T]], on_progress: Callable[[P], None]
    ) -> T:
        """Send a call that is answered with events, with retries, and return the final result."""
        return self._retry(lambda: self._follow_events(call, on_progress))

    def open_response(self, call: ApiCall[Any]) -> closing[httpx.Response]:
        """Send a call, with retries, and return the response once its headers have come.

        A failure while its body is read is not retried.
        """
        return closing(self._retry(lambda: self._send_request(call)))

    def _retry(self, send: Callable[[], T]) -> T:
        tries = 0
        while True:
            tries += 1
            try:
                return send()
            except AudiocraftError as error:
                wait_s = self._retries.wait_s(tries, error)
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _send_once(self, call: ApiCall[T]) -> T:
        with closing(self._send_request(call)) as response:
            with convert_http_errors():
                response.read()
            return call.read_response(response)

    def _follow_events(
        self, call: ApiCall[EventReader[P, T]], on_progress: Callable[[P], None]
    ) -> T:
        with closing(self._send_request(call)) as response:
            for event in read_events(response, call.read_response(response)):
                if isinstance(event, Done):
                    return event.result
                if not isinstance(event, AudioPart):
                    on_progress(event)
        raise AssertionError("events end with Done, or raise")

    def _send_request(self, call: ApiCall[Any]) -> httpx.Response:
        """Return the response, with its body still unread. Raises ApiError, NotReachable."""
        with convert_http_errors():
            response = self.http.send(call.build_request(self.http), stream=True)
            if response.is_success:
                return response
            with closing(response):
                response.read()
        raise read_error(response)


def read_parts(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body of a response as its bytes come. Raises CutOff, TimedOut."""
    with convert_http_errors():
        yield from response.iter_bytes()


def read_events(
    response: httpx.Response, reader: EventReader[P, T]
) -> Iterator[P | AudioPart | Done[T]]:
    """Yield the events of a response. Raises ApiError, and CutOff if the last one is missing."""
    for part in read_parts(response):
        yield from reader.feed(part)
    reader.check_complete()
