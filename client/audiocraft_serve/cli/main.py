"""`audiocraft-serve`, the command line."""

import signal
import sys
from types import FrameType

import typer

from audiocraft_serve.cli import batch, bench, codec, generate, jobs, server, workflows

HELP = "Text in, audio out: ask a server of audiocraft-serve."
ENDS = (
    "Exit codes: 0, done; 1, the server refused or failed; 2, a wrong command line; 3, the server "
    "is not reachable; 130, interrupted; 141, who read the output has closed it."
)
app = typer.Typer(no_args_is_help=True, help=HELP, epilog=ENDS, pretty_exceptions_enable=False)
for commands in (generate, workflows, codec, jobs, batch, bench, server):
    commands.add(app)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Run a command; being terminated, too, leaves no half file."""
    signal.signal(signal.SIGTERM, _terminated)
    app()
