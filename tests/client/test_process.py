"""The command line as a process: pipes, and being interrupted."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.application import ROOT
from tests.client.conftest import Served
from tests.client.test_cli import audio_in
from tests.client.test_client import charges, nothing_charged, seconds
from tests.waiting import until_async

MAIN = (sys.executable, "-c", "from audiocraft_serve.cli.main import main; main()")


def environment(served: Served) -> dict[str, str]:
    return os.environ | served.environment | {"PYTHONPATH": str(ROOT / "client")}


async def started(served: Served, folder: Path, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *MAIN, *arguments, cwd=folder, env=environment(served), stdout=PIPE, stderr=PIPE
    )


async def shell(served: Served, folder: Path, script: str) -> tuple[int, bytes, bytes]:
    """Run a script in which `audiocraft-serve` is the command."""
    quoted = f"'{MAIN[0]}' -c '{MAIN[2]}'"
    command = f'audiocraft-serve() {{ {quoted} "$@"; }}; set -o pipefail; {script}'
    return await ran(served, folder, "bash", "-c", command)


async def python(served: Served, folder: Path, source: str) -> tuple[int, bytes, bytes]:
    """Run a program that has the client."""
    return await ran(served, folder, sys.executable, "-c", source)


async def ran(served: Served, folder: Path, *command: str) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment(served), stdout=PIPE, stderr=PIPE
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
    code, stdout, stderr = await shell(served, tmp_path, script)
    assert code == 0, stderr
    assert seconds(stdout) == 2
    assert b"\x1b" not in stderr  # no bar where nobody looks


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("how", ["--stream", "-o"])
async def test_a_closed_pipe_ends_quietly(
    served: Served, tmp_path: Path, how: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    script = f"audiocraft-serve generate a -d 30 --json {how} - | head -c 10 > head"
    if how == "-o":
        script = script.replace(" --json", "")
    code, stdout, stderr = await shell(served, tmp_path, script)
    assert (code, stdout) == (141, b"")
    assert b"rror" not in stderr
    await until_async(lambda: nothing_charged(served))


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
    served.music.gate = asyncio.Event()  # never set: the server would work for ever
    with (tmp_path / "in.jsonl").open("w") as file:
        file.write('{"prompt": "a", "duration": 3}\n')
    process = await started(served, tmp_path, *arguments)

    async def works() -> bool:
        return bool(served.music.seen)

    await until_async(works)
    assert charges(served)
    process.send_signal(sent)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (code, b""), stderr
    assert b"Traceback" not in stderr
    await until_async(lambda: nothing_charged(served))
    assert not audio_in(tmp_path)
