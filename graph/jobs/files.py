"""What jobs take and give, as files: any store that fsspec knows, such as a folder or a bucket."""

import asyncio

import fsspec


class Files:
    """Files by the name of their job and their own."""

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)

    async def put(self, job: str, name: str, data: bytes) -> None:
        """Write a file."""

        def write() -> None:
            self._system.makedirs(f"{self._root}/{job}", exist_ok=True)
            self._system.pipe_file(f"{self._root}/{job}/{name}", data)

        await asyncio.to_thread(write)

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
