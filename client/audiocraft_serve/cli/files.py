"""Files in and out: `-` is stdin or stdout, and nothing that is half written gets its name."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from audiocraft_serve.cli.command import misused

STDIO = Path("-")
ENDINGS = {
    "wav": "wav", "wave": "wav", "flac": "flac", "mp3": "mp3", "opus": "opus", "ogg": "ogg",
    "oga": "ogg", "aac": "aac", "pcm": "pcm", "raw": "pcm",
}  # fmt: skip


class Sink(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take all of them."""

    def flush(self) -> None:
        """Pass on what was taken."""


def format_of(path: Path, given: str | None) -> str:
    """Return the format that is given, or told by a file's ending. Raises BadParameter."""
    if given or path == STDIO or not path.suffix:
        return given or "wav"
    told = ENDINGS.get(path.suffix.removeprefix(".").lower())
    if told is None:
        endings = ", ".join(f".{one}" for one in ENDINGS)
        raise misused(f"{path}: no format has this ending; say --format, or end in {endings}")
    return told


def text_of(prompt: str) -> str:
    """Return a prompt; `-` is all of stdin."""
    return sys.stdin.read().strip() if prompt == "-" else prompt


def read(path: Path) -> bytes:
    """Return a file's bytes; `-` is stdin. Raises BadParameter where there is no such file."""
    if path == STDIO:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise misused(str(error)) from error


class Stdout:
    """Takes all that is written; where Python's own is unbuffered, it may take only some."""

    def write(self, data: bytes, /) -> None:
        """Write all of it. Raises BrokenPipeError where nobody reads any more."""
        rest = memoryview(data)
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]

    def flush(self) -> None:
        """Pass it on."""
        sys.stdout.buffer.flush()


@contextmanager
def writing(path: Path) -> Iterator[Sink]:
    """Give a file to write, which has its name once it is whole; or a pipe, a device, stdout."""
    if path == STDIO:
        stdout = Stdout()
        yield stdout
        stdout.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as pipe:
            yield pipe
    else:
        beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            with beside.open("xb") as file:
                yield file
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with writing(path) as file:
        file.write(data)


def numbered(path: Path, count: int) -> list[Path]:
    """Return the names of so many files: `a.wav`, or `a-1.wav` and so on."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{one}{path.suffix}") for one in range(1, count + 1)]
