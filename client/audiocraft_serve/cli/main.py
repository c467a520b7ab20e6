"""Runs `audiocraft-serve`, the command line."""

import signal
import sys
import threading
from types import FrameType

import typer

from audiocraft_serve.cli import (
    batch_command,
    bench_command,
    codec_commands,
    generate_commands,
    job_commands,
    models_command,
    workflow_commands,
)

HELP = "Generate audio from text with a server of audiocraft-serve."
EXIT_CODES = (
    "Exit codes: 0, done; 1, the server refused the request or failed; 2, invalid command line; 3, "
    "the server cannot be reached; 130, interrupted; 141, the reader of the output closed the pipe."
)
app = typer.Typer(
    no_args_is_help=True, help=HELP, epilog=EXIT_CODES, pretty_exceptions_enable=False
)
for module in (
    generate_commands, workflow_commands, codec_commands, job_commands, batch_command,
    bench_command, models_command,
):  # fmt: skip
    module.add_commands(app)


def main() -> None:
    """Run the command line; SIGTERM removes partly written files, as SIGINT does.

    SIGTERM is raised again as SIGINT, for which asyncio cancels what runs instead of leaving it.
    """
    terminated = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        terminated.set()
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        app()
    except SystemExit:
        if terminated.is_set():
            sys.exit(128 + signal.SIGTERM)
        raise
