"""Reads and writes files; `-` is stdin or stdout, and a file appears only when it is complete."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from audiocraft_serve.cli.context import usage_error

STDIO = Path("-")
FORMAT_BY_SUFFIX = {
    "wav": "wav", "wave": "wav", "flac": "flac", "mp3": "mp3", "opus": "opus", "ogg": "ogg",
    "oga": "ogg", "aac": "aac", "pcm": "pcm", "raw": "pcm",
}  # fmt: skip


class ByteWriter(Protocol):
    """A file, pipe or stdout that bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes of `data`."""

    def flush(self) -> None:
        """Pass on the bytes that are buffered."""


def detect_format(path: Path, given: str | None) -> str:
    """Return the given format, or the one of the file's suffix. Raises BadParameter if unknown."""
    if given or path == STDIO or not path.suffix:
        return given or "wav"
    found = FORMAT_BY_SUFFIX.get(path.suffix.removeprefix(".").lower())
    if found is None:
        suffixes = ", ".join(f".{one}" for one in FORMAT_BY_SUFFIX)
        raise usage_error(f"{path}: unknown suffix; give --format, or end the name in {suffixes}")
    return found


def read_prompt(prompt: str) -> str:
    """Return the prompt; `-` reads it from stdin."""
    return sys.stdin.read().strip() if prompt == "-" else prompt


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; `-` is stdin. Raises BadParameter if it cannot be read."""
    if path == STDIO:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise usage_error(str(error)) from error


class Stdout:
    """Writes all bytes to stdout; an unbuffered stdout may write only a part per call."""

    def write(self, data: bytes, /) -> None:
        """Write all bytes of `data`. Raises BrokenPipeError if the reader has closed the pipe."""
        rest = memoryview(data)
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]

    def flush(self) -> None:
        """Pass on the bytes that are buffered."""
        sys.stdout.buffer.flush()


@contextmanager
def open_output(path: Path) -> Iterator[ByteWriter]:
    """Open an output; a regular file gets its name once the block ends without an error."""
    if path == STDIO:
        stdout = Stdout()
        yield stdout
        stdout.flush()
    elif path.exists() and not path.is_file():
        with path.open("wb") as pipe:
            yield pipe
    else:
        partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            with partial.open("xb") as file:
                yield file
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file, completely or not at all. Raises OSError."""
    with open_output(path) as file:
        file.write(data)


def number_paths(path: Path, count: int) -> list[Path]:
    """Return the paths of `count` files: `a.wav` for one, else `a-1.wav`, `a-2.wav` and so on."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{one}{path.suffix}") for one in range(1, count + 1)]
