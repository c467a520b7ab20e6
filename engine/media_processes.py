"""Runs `engine.media` in a process of its own for each file, because files are not trusted.

A server process has imported everything, and forks for each file. So a file that crashes or hangs
its process ends no other upload, and all memory returns to the system after each file.
"""

import contextlib
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pkgutil import resolve_name
from typing import Any

from engine.errors import EngineError, InvalidAudio

START_S = 120.0
"""Seconds in which a new server must fork for the first time; it imports everything before."""
FORK_S = 20.0
"""Seconds in which a server that has begun must fork."""
SERVER = "from engine.media_processes import serve_files; serve_files()"


class MediaProcesses:
    """The server process; it ends with the process that owns this object."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        """Seconds of CPU time that all files took."""
        self._lock = threading.Lock()
        self._start_server()

    def run_function(self, name: str, limit_s: float, *arguments: Any) -> Any:
        """Run the function `name`, such as `engine.media.probe`, in a process; this call blocks.

        Raises InvalidAudio where the process ends without an answer, as it does after `limit_s`
        seconds, and what the function raises.
        """
        with self._fork_process() as connection:
            began = time.monotonic()
            try:
                connection.send((name, limit_s, arguments))
                cpu_s, answer = connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                late = time.monotonic() - began >= limit_s
                what = f"takes longer than {limit_s:g} s" if late else "ends its decoder"
                message = f"reading the file {what}; convert it to wav or flac, and send it again"
                raise InvalidAudio(message) from error
        with self._lock:
            self.cpu_s += cpu_s
        if isinstance(answer, Exception):
            raise answer
        return answer

    def check_server(self) -> None:
        """Fork a process that does nothing. Raises EngineError as `_fork_process` does."""
        self._fork_process().close()

    def close(self) -> None:
        """End the server."""
        self._control.close()
        self._server.wait()

    def _fork_process(self) -> Connection:
        """Return the connection to a new process.

        A server that does not fork is replaced. Raises EngineError where the new one does not.
        """
        for _ in range(2):
            with self._lock:
                asked, connection = self._server, self._request_fork()
            if _has_begun(connection, FORK_S):
                return connection
            with self._lock:
                if asked is self._server:
                    self._replace_server()
        raise EngineError("the process that decodes files cannot be started")

    def _request_fork(self) -> Connection:
        mine, theirs = socket.socketpair()
        with theirs, contextlib.suppress(OSError):  # a server that has ended closes the connection
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        return Connection(mine.detach())

    def _replace_server(self) -> None:
        self._server.kill()
        self._server.wait()
        self._control.close()
        self._start_server()

    def _start_server(self) -> None:
        """Start the server and wait until it has forked. Raises EngineError if it does not."""
        self._control, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with theirs:
            command = [sys.executable, "-c", SERVER]
            self._server = subprocess.Popen(command, stdin=theirs.fileno(), env=environment)
        connection = self._request_fork()
        if not _has_begun(connection, START_S):
            raise EngineError("the process that decodes files cannot be started")
        connection.close()


def _has_begun(connection: Connection, limit_s: float) -> bool:
    """Say whether the process at the other end begins within `limit_s`; close it if it does not."""
    try:
        if connection.poll(limit_s) and connection.recv():
            return True
    except (EOFError, OSError):  # the server has ended
        pass
    connection.close()
    return False


def serve_files() -> None:
    """Fork for each socket that arrives on the standard input, until it is closed."""
    importlib.import_module("engine.media")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes processes that have ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as control:
        while True:
            _, ends, _, _ = socket.recv_fds(control, 1, 1)
            if not ends:
                return
            if os.fork() == 0:
                os.close(sys.stdin.fileno())
                control.close()
                _answer_call(Connection(ends[0]))
                os._exit(0)
            os.close(ends[0])


def _answer_call(connection: Connection) -> None:
    """Say that this process has begun, and run the function that is asked for."""
    connection.send(True)
    try:
        name, limit_s, arguments = connection.recv()
    except EOFError:  # the caller only wanted to know whether a process begins
        return
    signal.setitimer(signal.ITIMER_REAL, limit_s)  # its signal ends the process, also in C code
    try:
        answer = resolve_name(name)(*arguments)
    except Exception as error:  # noqa: BLE001 - the caller raises it
        answer = error
    connection.send((time.process_time(), answer))
