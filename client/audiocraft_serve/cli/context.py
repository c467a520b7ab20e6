"""Registers commands, and gives each one its context: server address, output and exit codes."""

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
PIPE_WIDTH = 200
"""Width of tables in columns, if the output is not a terminal."""
Options = dict[str, Any]


@dataclass(frozen=True)
class CommandContext:
    """The options that all commands share: the server's address and the output format."""

    url: str | None
    api_key: str | None
    as_json: bool

    def open_client(self) -> Client:
        """Return a client. Raises BadParameter if the address is not valid."""
        return self._create_client(Client)

    def open_async_client(self, max_retries: int) -> AsyncClient:
        """Return a client for asyncio. Raises BadParameter if the address is not valid."""
        return self._create_client(AsyncClient, max_retries=max_retries)

    def _create_client(self, kind: Callable[..., T], **more: Any) -> T:
        try:
            return kind(self.url, self.api_key, **more)
        except ValueError as error:
            raise usage_error(str(error)) from error

    def print_message(self, message: str) -> None:
        """Print a message for people on stderr; with --json, print nothing."""
        if not self.as_json:
            print(message, file=sys.stderr)

    def print_answer(self, facts: Any, shown: str | Table = "") -> None:
        """Print the answer on stdout: `facts` as JSON with --json, else `shown`."""
        if self.as_json:
            print(json.dumps(facts), flush=True)
        elif isinstance(shown, Table):
            Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(shown)
        elif shown:
            print(shown)


def shared_options(
    url: Annotated[
        str | None,
        typer.Option(
            help=f"Address of the server; by default {connection.DEFAULT_URL}.",
            envvar=connection.URL_VARIABLE,
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="API key. Set the environment variable to keep it out of the shell's history.",
            envvar=connection.API_KEY_VARIABLE,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer, and errors, as JSON.")
    ] = False,
) -> None:
    """Declare the options of every command; only the signature is used."""


def register_command(
    app: typer.Typer, name: str, *groups: Callable[..., None]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that registers a command with the options of `groups`.

    The command receives a CommandContext and, if there are groups, `options`: those of their
    options that were given.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        grouped = [one for group in groups for one in _list_parameters(group)]
        shared = [*grouped, *_list_parameters(shared_options)]
        own = [one for one in _list_parameters(function) if one.name not in ("context", "options")]

        @functools.wraps(function)
        def run(**given: Any) -> None:
            context = CommandContext(given.pop("url"), given.pop("api_key"), given.pop("as_json"))
            if groups:
                options = {one.name: given.pop(one.name) for one in grouped}
                given["options"] = {k: v for k, v in options.items() if v is not None}
            with exit_on_error(context):
                function(context, **given)

        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *shared)}
        return app.command(name)(run)

    return register


def _list_parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    signature = inspect.signature(function)
    return [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()
    ]


@contextmanager
def exit_on_error(context: CommandContext) -> Iterator[None]:
    """Turn an error into one line on stderr and the exit code that belongs to it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:  # the reader of our output has closed the pipe
        with suppress(OSError, ValueError):  # Python flushes stdout once more when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from error
    except AudiocraftError as error:
        print_error(context, error)
        code = UNREACHABLE if isinstance(error, NotReachable) else FAILED
        raise typer.Exit(code) from error
    except OSError as error:
        print_error(context, error)
        raise typer.Exit(FAILED) from error


def print_error(context: CommandContext, error: Exception, prefix: str = "") -> None:
    """Print an error on stderr, as JSON with --json."""
    facts = error_to_json(error)
    if context.as_json:
        print(json.dumps(facts), file=sys.stderr)
        return
    request_id = facts.get("request_id")
    suffix = f" (request {request_id})" if request_id else ""
    print(f"error: {prefix}{error}{suffix}", file=sys.stderr)


def error_to_json(error: Exception) -> dict[str, Any]:
    """Return an error as JSON, in the shape that the server uses."""
    if isinstance(error, ApiError):
        return error.to_json()
    code = "not_reachable" if isinstance(error, NotReachable) else "failed"
    return {"error": {"message": str(error), "param": None, "code": code}}


def usage_error(message: str) -> typer.BadParameter:
    """Return the error of an invalid command line (exit code 2)."""
    return typer.BadParameter(message)
