"""Debian's redis-server, as a process that tests may kill."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.waiting import free_port, until


class RedisServer:
    """Debian's redis-server, which keeps what it has written."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self.port, self._options = folder, free_port(), options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", *self._options]
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

    def ask(self, *command: str) -> str:
        """Return what a command answers."""
        asked = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@contextmanager
def running_cluster(folder: Path) -> Iterator[str]:
    """Yield the address of a Redis cluster of two nodes, each with half of the keys."""
    with ExitStack() as stack:
        nodes = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            bus = ["--cluster-port", str(free_port())]
            nodes.append(RedisServer(folder / name, "--cluster-enabled", "yes", *bus))
            stack.callback(nodes[-1].kill)
        nodes[0].ask("cluster", "addslotsrange", "0", "8191")
        nodes[1].ask("cluster", "addslotsrange", "8192", "16383")
        (bus_port,) = nodes[1].ask("config", "get", "cluster-port").split()[1:]
        nodes[0].ask("cluster", "meet", "127.0.0.1", str(nodes[1].port), bus_port)
        for node in nodes:
            until(lambda node=node: "cluster_state:ok" in node.ask("cluster", "info"))
        yield nodes[0].url
