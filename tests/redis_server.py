"""Debian's redis-server, as a process that tests may kill."""

import socket
import subprocess
from pathlib import Path

from tests.waiting import free_port


class RedisServer:
    """Debian's redis-server, which keeps what it has written."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        self._answers()

    def _answers(self) -> None:
        while True:
            assert self._process.poll() is None, "redis-server ended"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(100) == b"+PONG\r\n":
                        return
            except OSError:
                continue

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
