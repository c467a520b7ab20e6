"""Runs every example of docs/client.md."""

import re
from pathlib import Path

from tests.application import ROOT
from tests.client.conftest import Served
from tests.client.test_cli import read_files
from tests.client.test_client import read_seconds
from tests.client.test_process import run_python, run_shell

PAGE = (ROOT / "docs" / "client.md").read_text()


def read_blocks(language: str) -> str:
    """Return all code blocks of the page in one language, joined."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return "\n".join(found)


async def test_the_python(served: Served, tmp_path: Path):
    code, stdout, stderr = await run_python(served, tmp_path, read_blocks("python"))
    assert code == 0, stderr
    told = stdout.decode()
    assert "bytes, received while they were generated" in told
    assert "('fast drums', 1, 1.0)" in told
    assert "duration: " in told.splitlines()[-1]
    assert read_seconds(read_files(tmp_path)["longer.wav"]) == 5


async def test_the_shell(served: Served, tmp_path: Path):
    script = read_blocks("sh")
    code, stdout, stderr = await run_shell(served, tmp_path, f"set -eu\n{script}")
    assert code == 0, stderr
    assert b"music" in stdout
    found = read_files(tmp_path)
    named = set(re.findall(r"(?:-o|>) (\S+\.\w+)", script))
    assert len(named) == 7
    assert named <= set(found)
    assert "beat.flac" in found


async def test_every_command_is_told(served: Served, tmp_path: Path):
    _, stdout, _ = await run_shell(served, tmp_path, "COLUMNS=200 audiocraft-serve --help")
    commands = set(re.findall(r"^│ (\w+) ", stdout.decode(), re.MULTILINE))
    assert "generate" in commands
    assert not {one for one in commands if not re.search(rf"(`|serve ){one}\b", PAGE)}
