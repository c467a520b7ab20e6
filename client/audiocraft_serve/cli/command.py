"""What every command has: how to reach the server, how to answer, and how to end."""

import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from audiocraft_serve import connection
from audiocraft_serve.async_client import AsyncClient
from audiocraft_serve.client import Client
from audiocraft_serve.errors import ApiError, AudiocraftError, NotReachable

T = TypeVar("T")
FAILED, UNREACHABLE, INTERRUPTED = 1, 3, 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE
WIDE = 200
"""Columns of what no terminal shows."""
Options = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """How to reach the server, and how to answer."""

    url: str | None
    api_key: str | None
    as_json: bool

    def client(self) -> Client:
        """Return a client. Raises BadParameter where the address is none."""
        return self._asking(Client)

    def async_client(self, max_retries: int) -> AsyncClient:
        """Return a client for asyncio. Raises BadParameter where the address is none."""
        return self._asking(AsyncClient, max_retries=max_retries)

    def _asking(self, kind: Callable[..., T], **more: Any) -> T:
        try:
            return kind(self.url, self.api_key, **more)
        except ValueError as error:
            raise misused(str(error)) from error

    def say(self, message: str) -> None:
        """Tell a person something, beside the data."""
        if not self.as_json:
            print(message, file=sys.stderr)

    def answer(self, facts: Any, shown: str | Table = "") -> None:
        """Print the answer: JSON for machines, else what is to be shown."""
        if self.as_json:
            print(json.dumps(facts), flush=True)
        elif isinstance(shown, Table):
            Console(width=None if sys.stdout.isatty() else WIDE).print(shown)
        elif shown:
            print(shown)


def everywhere(
    url: Annotated[
        str | None,
        typer.Option(help=f"Of the server; by default {connection.LOCAL}.", envvar=connection.URL),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Better in the environment.", envvar=connection.API_KEY)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer, and fail, with JSON.")] = False,
) -> None:
    """Name the options of every command."""


def command(
    app: typer.Typer, name: str, *groups: Callable[..., None]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command, which gets `told` and, of groups of options, those given as `options`."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        grouped = [one for group in groups for one in _parameters(group)]
        shared = [*grouped, *_parameters(everywhere)]
        own = [one for one in _parameters(function) if one.name not in ("told", "options")]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            told = Told(given.pop("url"), given.pop("api_key"), given.pop("as_json"))
            if groups:
                options = {one.name: given.pop(one.name) for one in grouped}
                given["options"] = {k: v for k, v in options.items() if v is not None}
            with ending(told):
                function(told, **given)

        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
        return app.command(name)(run)

    return register


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    signature = inspect.signature(function)
    return [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()
    ]


@contextmanager
def ending(told: Told) -> Iterator[None]:
    """End with one line and an exit code, whatever happens."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:  # who reads has what they wanted
        with suppress(OSError, ValueError):  # Python flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from error
    except AudiocraftError as error:
        complain(told, error)
        code = UNREACHABLE if isinstance(error, NotReachable) else FAILED
        raise typer.Exit(code) from error
    except OSError as error:
        complain(told, error)
        raise typer.Exit(FAILED) from error


def complain(told: Told, error: Exception, where: str = "") -> None:
    """Say what went wrong, on stderr."""
    facts = described(error)
    if told.as_json:
        print(json.dumps(facts), file=sys.stderr)
        return
    request_id = facts.get("request_id")
    named = f" (request {request_id})" if request_id else ""
    print(f"error: {where}{error}{named}", file=sys.stderr)


def described(error: Exception) -> dict[str, Any]:
    """Return an error in the server's shape."""
    if isinstance(error, ApiError):
        return error.to_json()
    code = "not_reachable" if isinstance(error, NotReachable) else "failed"
    return {"error": {"message": str(error), "param": None, "code": code}}


def misused(message: str) -> typer.BadParameter:
    """Return the error of a wrong command line."""
    return typer.BadParameter(message)
