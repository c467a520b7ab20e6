"""Defines the command `batch`, which generates a clip for each line of a file of prompts."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from audiocraft_serve.async_client import AsyncClient
from audiocraft_serve.cli import files
from audiocraft_serve.cli.context import (
    FAILED,
    CommandContext,
    Options,
    error_to_json,
    print_error,
    register_command,
)
from audiocraft_serve.cli.generate_commands import Source
from audiocraft_serve.cli.options import CLIP_OPTIONS
from audiocraft_serve.cli.progress_bar import ProgressBar
from audiocraft_serve.errors import AudiocraftError, InvalidApiKey, NotReachable
from audiocraft_serve.parameters import GenerationParameters

FIELDS = ("name", "prompt", *GenerationParameters.__annotations__)
MAX_RETRIES = 20
"""More than the client's default, because nobody waits for a single clip of a batch."""


class InvalidLine(Exception):
    """A line of the file is not a valid request."""


@dataclass(frozen=True)
class Line:
    """A line of the file: a prompt, its parameters, and the paths of its audio files."""

    number: int
    prompt: str
    parameters: dict[str, Any]
    paths: list[Path]

    @property
    def is_complete(self) -> bool:
        """Whether all files of the line exist, for example from an earlier run."""
        return all(path.exists() for path in self.paths)


def add_commands(app: typer.Typer) -> None:
    """Register the command."""

    @register_command(app, "batch", *CLIP_OPTIONS)
    def run_batch(
        context: CommandContext,
        file: Source,
        folder: Annotated[
            Path, typer.Option("--output", "-o", file_okay=False, help="Folder for the clips.")
        ],
        options: Options,
        parallel: Annotated[
            int, typer.Option(min=1, help="Number of lines that are generated at the same time.")
        ] = 4,
    ) -> None:
        """Generate a clip for every line of a JSON Lines file, such as {"prompt": "calm piano"}.

        A line has a `prompt`, optionally a `name`, and any parameter of the API; the options are
        the defaults. Run again, the command generates only the clips that are missing.
        """
        lines, failed = _parse_lines(context, files.read_file(file).decode(), folder, options)
        folder.mkdir(parents=True, exist_ok=True)
        batch = Batch(context, lines)
        asyncio.run(batch.run(parallel))
        failed += batch.failed
        context.print_message(
            f"{batch.generated} generated, {batch.skipped} already there, {failed} failed"
        )
        if failed:
            raise typer.Exit(FAILED)


def _parse_lines(
    context: CommandContext, text: str, folder: Path, options: Options
) -> tuple[list[Line], int]:
    """Return the valid lines and the number of invalid ones, which are printed as failures."""
    lines, failed, taken = list[Line](), 0, dict[Path, int]()
    for number, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            line = _parse_line(number, source, folder, options)
            if other := next((taken[path] for path in line.paths if path in taken), None):
                raise InvalidLine(f"line {other} has the same file; give this line another name")
        except InvalidLine as error:
            failed += 1
            _print_failure(context, number, error)
        else:
            taken |= dict.fromkeys(line.paths, number)
            lines.append(line)
    return lines, failed


def _parse_line(number: int, source: str, folder: Path, options: Options) -> Line:
    """Parse a line. Raises InvalidLine."""
    try:
        fields = json.loads(source)
    except ValueError as error:
        raise InvalidLine(f"the line is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str):
        raise InvalidLine('give a prompt, such as {"prompt": "calm piano"}')
    if unknown := [name for name in fields if name not in FIELDS]:
        raise InvalidLine(f"unknown field {unknown[0]!r}; valid: {', '.join(FIELDS)}")
    parameters = options | fields
    prompt, name = parameters.pop("prompt"), parameters.pop("name", None)
    name = _build_name(prompt, parameters) if name is None else name
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", ".."):
        raise InvalidLine(f"name: {name!r}; give a file name without folders")
    count = parameters.get("n", 1)
    if not isinstance(count, int) or count < 1:
        raise InvalidLine(f"n: {count!r}; give an integer of at least 1")
    path = folder / f"{name}.{parameters.get('format', 'wav')}"
    return Line(number, prompt, parameters, files.number_paths(path, count))


def _build_name(prompt: str, parameters: dict[str, Any]) -> str:
    """Return a file name: the first words of the prompt, and a hash of prompt and parameters."""
    content = json.dumps([prompt, parameters], sort_keys=True).encode()
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].rstrip("-")
    return f"{words}-{hashlib.sha256(content).hexdigest()[:8]}"


class Batch:
    """Generates the clips of lines, several lines at a time, and counts the results."""

    def __init__(self, context: CommandContext, lines: Sequence[Line]) -> None:
        self._context, self._lines = context, lines
        self.generated = self.skipped = self.failed = 0

    async def run(self, parallel: int) -> None:
        """Generate the missing clips, `parallel` lines at a time.

        Raises NotReachable or InvalidApiKey at once, because every further line would fail too.
        """
        lines = iter(self._lines)
        try:
            async with self._context.open_async_client(MAX_RETRIES) as client:
                with ProgressBar("batch") as bar:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(parallel):
                            group.create_task(self._run_lines(client, lines, bar))
        except* (AudiocraftError, OSError) as errors:
            first_error = errors.exceptions[0]
        else:
            return
        raise first_error

    async def _run_lines(
        self, client: AsyncClient, lines: Iterator[Line], bar: ProgressBar
    ) -> None:
        for line in lines:
            await self._run_line(client, line)
            ended = self.generated + self.skipped + self.failed
            bar.show_stage(f"{ended} of {len(self._lines)}", ended / len(self._lines))

    async def _run_line(self, client: AsyncClient, line: Line) -> None:
        if await asyncio.to_thread(lambda: line.is_complete):
            self.skipped += 1
            self._print_result(line, "there")
            return
        try:
            # With on_progress, the server stops the work when the command is interrupted.
            generation = await client.generate(
                line.prompt, on_progress=lambda _: None, **line.parameters
            )
        except (AudiocraftError, OSError) as error:
            if type(error) is NotReachable or isinstance(error, InvalidApiKey):
                raise
            self.failed += 1
            _print_failure(self._context, line.number, error)
            return
        for clip, path in zip(generation.clips, line.paths, strict=True):
            await asyncio.to_thread(files.write_file, path, clip.audio)
        self.generated += 1
        self._print_result(line, "made", seed=generation.seed, model=generation.model)

    def _print_result(self, line: Line, status: str, **facts: Any) -> None:
        paths = [str(path) for path in line.paths]
        answer = {"line": line.number, "status": status, "paths": paths, **facts}
        self._context.print_answer(answer)


def _print_failure(context: CommandContext, number: int, error: Exception) -> None:
    """Print the failure of a line: on stdout with the other lines' results if --json is given."""
    if context.as_json:
        failure = error_to_json(error)["error"]
        context.print_answer({"line": number, "status": "failed", "error": failure})
    else:
        print_error(context, error, f"line {number}: ")
