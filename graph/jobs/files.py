"""The files of jobs, uploads and answers, in any store that fsspec knows: a folder or a bucket."""

import asyncio
from contextlib import suppress

import fsspec

from graph.errors import ApiError


class Files:
    """Files by the name of their job and their own."""

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)

    async def put(self, job: str, name: str, data: bytes) -> None:
        """Write a file, whole or not at all. Raises ApiError 503 where it cannot be written."""
        path = f"{self._root}/{job}/{name}"

        def write() -> None:
            try:
                self._system.makedirs(f"{self._root}/{job}", exist_ok=True)
                self._system.pipe_file(path, data)
            except OSError:
                with suppress(OSError):
                    self._system.rm_file(path)
                raise

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            message = "what keeps results is full or cannot be reached; try again"
            raise ApiError(503, "results_unavailable", message) from error

    async def get(self, job: str, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        path = f"{self._root}/{job}/{name}"
        data: bytes = await asyncio.to_thread(self._system.cat_file, path)
        return data

    async def forget(self, job: str) -> None:
        """Delete all of a job's files."""

        def delete() -> None:
            if self._system.exists(f"{self._root}/{job}"):
                self._system.rm(f"{self._root}/{job}", recursive=True)

        await asyncio.to_thread(delete)
