"""Tests the processes that read files: a file that harms its process harms nothing else."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from benchmarks.media_files import encode_with_soundfile
from engine.errors import InvalidAudio
from engine.media import decode
from engine.media_processes import SERVER, MediaProcesses
from engine.params import MediaLimits, UploadInfo
from tests.waiting import until

LIMITS = MediaLimits(max_bytes=2_000_000, max_seconds=20, max_channels=2)
FILE = encode_with_soundfile("WAV", "PCM_16")


@pytest.fixture(scope="module")
def processes() -> Iterator[MediaProcesses]:
    made = MediaProcesses()
    yield made
    made.close()


def find_server() -> psutil.Process:
    """Return the server among the processes that other tests may have left running."""
    (server,) = (one for one in psutil.Process().children() if SERVER in one.cmdline())
    return server


def probe(processes: MediaProcesses) -> UploadInfo:
    info: UploadInfo = processes.run_function("engine.media.probe", 60, FILE, LIMITS)
    return info


def test_answers_and_errors_are_those_of_the_functions(processes: MediaProcesses):
    to = LIMITS, 16000, 2
    assert processes.run_function("engine.media.decode", 60, FILE, *to) == decode(FILE, *to)
    with pytest.raises(InvalidAudio, match="cannot be read"):
        processes.run_function("engine.media.decode", 60, b"no audio", *to)
    assert processes.cpu_s > 0


def test_a_file_that_hangs_is_ended_and_its_neighbours_are_not(processes: MediaProcesses):
    server = find_server()
    with ThreadPoolExecutor() as threads:
        hangs = threads.submit(processes.run_function, "time.sleep", 3, 3600)
        stays = threads.submit(processes.run_function, "time.sleep", 60, 5)
        until(lambda: len(server.children()) == 2)
        assert probe(processes).seconds == 1, "a neighbour that comes while a file hangs"
        assert not hangs.done()
        with pytest.raises(InvalidAudio, match="takes longer than 3 s"):
            hangs.result()
        assert stays.result() is None
    until(lambda: not server.children())


@pytest.mark.parametrize("crash", ["os.abort", "os._exit"])
def test_a_file_that_ends_its_process_ends_no_other(processes: MediaProcesses, crash: str):
    with pytest.raises(InvalidAudio, match="ends its decoder"):
        processes.run_function(crash, 60, *[1][: crash == "os._exit"])
    assert probe(processes).seconds == 1


def test_memory_returns_after_each_file(processes: MediaProcesses):
    before = find_server().memory_info().rss
    for _ in range(3):
        made = processes.run_function("numpy.ones", 60, 50_000_000)
        assert made.nbytes == 400_000_000
    del made
    until(lambda: not find_server().children())
    assert find_server().memory_info().rss < before + 20_000_000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_died_or_hangs_is_replaced(
    processes: MediaProcesses, number: int, monkeypatch: pytest.MonkeyPatch
):
    server = find_server()
    with ThreadPoolExecutor() as threads:
        stays = threads.submit(processes.run_function, "time.sleep", 100, 10)
        until(lambda: len(server.children()) == 1)
        os.kill(server.pid, number)
        monkeypatch.setattr("engine.media_processes.FORK_S", 5.0)
        with ThreadPoolExecutor() as health:
            checks = [health.submit(processes.check_server) for _ in range(3)]
        for check in checks:
            check.result()
        assert find_server().pid != server.pid
        assert stays.result() is None, "the file that was in work"
    assert probe(processes).seconds == 1


def test_the_server_ends_with_its_owner():
    owned = MediaProcesses()
    began = time.monotonic()
    owned.close()
    assert time.monotonic() - began < 60
