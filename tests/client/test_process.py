"""Tests the command line as a process: pipes and signals."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.application import ROOT
from tests.client.conftest import Served
from tests.client.test_cli import list_audio
from tests.client.test_client import count_charges, has_no_charges, read_seconds
from tests.waiting import until_async

MAIN = (sys.executable, "-c", "from audiocraft_serve.cli.main import main; main()")


def build_environment(served: Served) -> dict[str, str]:
    return os.environ | served.environment | {"PYTHONPATH": str(ROOT / "client")}


async def start_command(served: Served, folder: Path, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *MAIN, *arguments, cwd=folder, env=build_environment(served), stdout=PIPE, stderr=PIPE
    )


async def run_shell(served: Served, folder: Path, script: str) -> tuple[int, bytes, bytes]:
    """Run a shell script that can call `audiocraft-serve`."""
    quoted = f"'{MAIN[0]}' -c '{MAIN[2]}'"
    command = f'audiocraft-serve() {{ {quoted} "$@"; }}; set -o pipefail; {script}'
    return await run_process(served, folder, "bash", "-c", command)


async def run_python(served: Served, folder: Path, source: str) -> tuple[int, bytes, bytes]:
    """Run a Python program that can import the client."""
    return await run_process(served, folder, sys.executable, "-c", source)


async def run_process(served: Served, folder: Path, *command: str) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=build_environment(served), stdout=PIPE, stderr=PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout, stderr


async def test_from_pipe_to_pipe(served: Served, tmp_path: Path):
    script = (
        "echo calm piano | audiocraft-serve generate - -d 1 -o - "
        "| audiocraft-serve encode - | audiocraft-serve decode - -o - "
        "| audiocraft-serve continue - brighter -d 2 --stream -"
    )
    code, stdout, stderr = await run_shell(served, tmp_path, script)
    assert code == 0, stderr
    assert read_seconds(stdout) == 2
    assert b"\x1b" not in stderr  # no progress bar without a terminal


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("how", ["--stream", "-o"])
async def test_a_closed_pipe_ends_quietly(
    served: Served, tmp_path: Path, how: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    script = f"audiocraft-serve generate a -d 30 --json {how} - | head -c 10 > head"
    if how == "-o":
        script = script.replace(" --json", "")
    code, stdout, stderr = await run_shell(served, tmp_path, script)
    assert (code, stdout) == (141, b"")
    assert b"rror" not in stderr
    await until_async(lambda: has_no_charges(served))


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "a", "-d", "3", "-o", "a.wav"),
        ("generate", "a", "-d", "3", "--stream", "a.wav"),
        ("batch", "in.jsonl", "-o", "."),
    ],
)
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_who_is_interrupted_stops_the_work_and_leaves_no_half_file(
    served: Served, tmp_path: Path, arguments: tuple[str, ...], sent: signal.Signals, code: int
):
    served.music.gate = asyncio.Event()  # never set: the generation never ends
    with (tmp_path / "in.jsonl").open("w") as file:
        file.write('{"prompt": "a", "duration": 3}\n')
    process = await start_command(served, tmp_path, *arguments)

    async def works() -> bool:
        return bool(served.music.seen)

    await until_async(works)
    assert count_charges(served)
    process.send_signal(sent)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (code, b""), stderr
    assert b"Traceback" not in stderr
    await until_async(lambda: has_no_charges(served))
    assert not list_audio(tmp_path)
