"""Writes files into JSON in base64, piece by piece, so that no whole answer is held."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from uuid import uuid4

BASE64_BYTES = 3 * 2**18
"""The bytes of a piece before base64; a multiple of three, so that pieces can be joined."""
PIECE_BYTES = 2**20


class EmbeddedFiles:
    """Files that stand in a text as marks until the text is written."""

    def __init__(self) -> None:
        self._files: dict[str, Callable[[], Iterable[bytes]]] = {}

    def add_file(self, make_parts: Callable[[], Iterable[bytes]]) -> str:
        """Return the mark of a file, whose parts are made when the text is written."""
        mark = f"file-{uuid4().hex}"
        self._files[mark] = make_parts
        return mark

    def write_text(self, text: str) -> Iterator[bytes]:
        """Yield a text with its files in base64, in pieces of a megabyte; read it on a thread.

        What is smaller is one piece, since each costs a call between processes.
        """
        piece = bytearray()
        for part in self._write_parts(text):
            piece += part
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)

    def _write_parts(self, text: str) -> Iterator[bytes]:
        marks = [mark for mark in self._files if mark in text]
        if not marks:
            yield text.encode()
            return
        for piece in re.split(f"({'|'.join(marks)})", text):
            if make_parts := self._files.pop(piece, None):
                yield from encode_base64(make_parts())
            else:
                yield piece.encode()


def encode_base64(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the base64 of all parts together, in pieces of about a megabyte."""
    rest = bytearray()
    for part in parts:
        for start in range(0, len(part), BASE64_BYTES):
            rest += part[start : start + BASE64_BYTES]
            if len(rest) >= BASE64_BYTES:
                yield base64.b64encode(rest[:BASE64_BYTES])
                del rest[:BASE64_BYTES]
    yield base64.b64encode(rest)
