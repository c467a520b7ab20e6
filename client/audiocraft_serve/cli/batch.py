"""`batch`: a file of prompts to a folder of clips."""

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
from audiocraft_serve.cli.command import FAILED, Options, Told, command, complain, described
from audiocraft_serve.cli.generate import Source
from audiocraft_serve.cli.options import CLIP
from audiocraft_serve.cli.progress import Bar
from audiocraft_serve.errors import AudiocraftError, InvalidApiKey, NotReachable
from audiocraft_serve.parameters import GenerationParameters

FIELDS = ("name", "prompt", *GenerationParameters.__annotations__)
RETRIES = 20
"""Nobody waits for the next clip: a busy server is asked for longer."""


class InvalidLine(Exception):
    """A line says nothing that could be made."""


@dataclass(frozen=True)
class Line:
    """A line of the file: one prompt, its parameters, and the files that it becomes."""

    number: int
    prompt: str
    parameters: dict[str, Any]
    paths: list[Path]

    @property
    def is_there(self) -> bool:
        """Whether it was made before."""
        return all(path.exists() for path in self.paths)


def add(app: typer.Typer) -> None:
    """Add this command."""

    @command(app, "batch", *CLIP)
    def batch(
        told: Told,
        file: Source,
        folder: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="A folder.")],
        options: Options,
        parallel: Annotated[int, typer.Option(min=1, help="Lines at the same time.")] = 4,
    ) -> None:
        """Make a clip of every line of a JSON Lines file, such as {"prompt": "calm piano"}.

        A line has a `prompt`, perhaps a `name`, and any parameter of the API; the options here are
        for lines that do not say. Made again, it makes only what is not there yet.
        """
        lines, failed = _lines(told, files.read(file).decode(), folder, options)
        folder.mkdir(parents=True, exist_ok=True)
        work = Batch(told, lines)
        asyncio.run(work.run(parallel))
        failed += work.failed
        told.say(f"{work.made} made, {work.kept} there already, {failed} failed")
        if failed:
            raise typer.Exit(FAILED)


def _lines(told: Told, text: str, folder: Path, options: Options) -> tuple[list[Line], int]:
    """Return the lines, and how many say nothing that could be made; tell of each."""
    lines, failed, taken = list[Line](), 0, dict[Path, int]()
    for number, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            line = _line(number, source, folder, options)
            if other := next((taken[path] for path in line.paths if path in taken), None):
                raise InvalidLine(f"the same file as line {other}; give it a name of its own")
        except InvalidLine as error:
            failed += 1
            _fail(told, number, error)
        else:
            taken |= dict.fromkeys(line.paths, number)
            lines.append(line)
    return lines, failed


def _line(number: int, source: str, folder: Path, options: Options) -> Line:
    """Read a line. Raises InvalidLine."""
    try:
        said = json.loads(source)
    except ValueError as error:
        raise InvalidLine(f"this is not JSON: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("prompt"), str):
        raise InvalidLine('it needs a prompt, such as {"prompt": "calm piano"}')
    if unknown := [name for name in said if name not in FIELDS]:
        raise InvalidLine(f"unknown {unknown[0]!r}; valid: {', '.join(FIELDS)}")
    parameters = options | said
    prompt, name = parameters.pop("prompt"), parameters.pop("name", None)
    name = _name(prompt, parameters) if name is None else name
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", ".."):
        raise InvalidLine(f"name: {name!r}; allowed: the name of a file, without folders")
    count = parameters.get("n", 1)
    if not isinstance(count, int) or count < 1:
        raise InvalidLine(f"n: {count!r}; allowed: 1 and more")
    ending = parameters.get("format", "wav")
    return Line(number, prompt, parameters, files.numbered(folder / f"{name}.{ending}", count))


def _name(prompt: str, parameters: dict[str, Any]) -> str:
    """Return a name that tells the prompt, and stays the same while nothing is changed."""
    said = json.dumps([prompt, parameters], sort_keys=True).encode()
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40].rstrip("-")
    return f"{words}-{hashlib.sha256(said).hexdigest()[:8]}"


class Batch:
    """Makes lines, several at a time, and counts what became of them."""

    def __init__(self, told: Told, lines: Sequence[Line]) -> None:
        self._told, self._lines = told, lines
        self.made = self.kept = self.failed = 0

    async def run(self, parallel: int) -> None:
        """Make what is not there. Raises NotReachable or InvalidApiKey, which all would meet."""
        rest = iter(self._lines)
        try:
            async with self._told.async_client(RETRIES) as client:
                with Bar("batch") as bar:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(parallel):
                            group.create_task(self._work(client, rest, bar))
        except* (AudiocraftError, OSError) as several:
            stopped = several.exceptions[0]
        else:
            return
        raise stopped

    async def _work(self, client: AsyncClient, rest: Iterator[Line], bar: Bar) -> None:
        for line in rest:
            await self._one(client, line)
            ended = self.made + self.kept + self.failed
            bar.show(f"{ended} of {len(self._lines)}", ended / len(self._lines))

    async def _one(self, client: AsyncClient, line: Line) -> None:
        if await asyncio.to_thread(lambda: line.is_there):
            self.kept += 1
            self._tell(line, "there")
            return
        try:
            # Told by events, so that who interrupts it stops what is being made.
            made = await client.generate(
                line.prompt,
                on_progress=lambda _: None,
                **line.parameters,
            )
        except (AudiocraftError, OSError) as error:
            if type(error) is NotReachable or isinstance(error, InvalidApiKey):
                raise
            self.failed += 1
            _fail(self._told, line.number, error)
            return
        for clip, path in zip(made.clips, line.paths, strict=True):
            await asyncio.to_thread(files.write, path, clip.audio)
        self.made += 1
        self._tell(line, "made", seed=made.seed, model=made.model)

    def _tell(self, line: Line, status: str, **facts: Any) -> None:
        paths = [str(path) for path in line.paths]
        self._told.answer({"line": line.number, "status": status, "paths": paths, **facts})


def _fail(told: Told, number: int, error: Exception) -> None:
    """Tell of a line that failed: a machine is told as of those that did not."""
    if told.as_json:
        told.answer({"line": number, "status": "failed", "error": described(error)["error"]})
    else:
        complain(told, error, f"line {number}: ")
